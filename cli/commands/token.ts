import { Option, type Command } from 'commander'
import type { TokenScope } from '../client.ts'
import { usageError } from '../exit.ts'
import { formatTable } from '../format.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface CreateOptions extends CommonOptions {
  scope: TokenScope[]
  organization?: string
  expires?: string
}

export function addToken(program: Command): void {
  const group = program.command('token').summary('tokens of yours').description('Tokens of yours. A token never has more rights than the one that made it.')
    .addHelpText('after', '\nExamples:\n  portllm token create ci --scope read publish --organization lab --expires 2027-01-01T00:00:00Z\n  portllm token ls\n  portllm token revoke 2f0c3c1e-…')
  const creating = addCommand(group, 'create <name>', 'make a token; it is shown once')
    .addOption(new Option('--scope <scopes...>', 'what it may do').choices(['read', 'publish', 'admin', 'runner']).default(['read']))
    .option('--organization <name>', 'limit it to one organization')
    .option('--expires <time>', 'when it ends, as a date or time such as 2027-01-01')
  answerWith(creating, create)
  answerWith(addCommand(group, 'ls', 'list your tokens'), list)
  answerWith(addCommand(group, 'revoke <id>', 'end a token at once'), revoke)
}

async function create(session: Session, { scope, organization, expires }: CreateOptions, name: string): Promise<Answer> {
  const expiresAt = expires === undefined ? undefined : new Date(expires)
  if (expiresAt !== undefined && Number.isNaN(expiresAt.getTime())) throw usageError(`--expires ${expires} is not a time: write one such as 2027-01-01 or 2027-01-01T12:00:00Z.`)
  const token = await (await session.connect()).createToken({ name, scopes: scope, organization, expiresAt: expiresAt?.toISOString() })
  session.note('This is shown only once:')
  return { json: token, text: token.token }
}

async function list(session: Session): Promise<Answer> {
  const { items } = await (await session.connect()).listTokens({ limit: 200 })
  const rows = items.map((token) => [token.id, token.name, token.scopes.join(' '), token.organization, token.revokedAt === null ? (token.expiresAt ?? 'never') : 'revoked', token.lastUsedAt])
  return { json: items, text: formatTable(['ID', 'NAME', 'SCOPES', 'ORGANIZATION', 'EXPIRES', 'LAST USED'], rows) }
}

async function revoke(session: Session, _options: CommonOptions, id: string): Promise<Answer> {
  await (await session.connect()).revokeToken(id)
  return { json: { id, revoked: true }, text: `The token ${id} is revoked.` }
}
