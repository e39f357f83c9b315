import type { Command } from 'commander'
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { createRegistry, type Whoami } from '../client.ts'
import { checkRegistryUrl, configPath, forgetLogin, readConnection, storeLogin } from '../config.ts'
import { CliError, EXIT, usageError } from '../exit.ts'
import { formatFields } from '../format.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

export function addAccountCommands(program: Command): void {
  const login = addCommand(program, 'login [registry]', 'keep a token for a registry, which becomes the default')
    .option('--token-stdin', 'read the token from stdin')
    .addHelpText('after', `
A registry prints its first token when it starts for the first time; \`portllm token create\` makes others.
PORTLLM_REGISTRY and PORTLLM_TOKEN override what is stored.

Examples:
  portllm login https://registry.example.org
  echo "$TOKEN" | portllm login https://registry.example.org --token-stdin`)
  answerWith(login, logIn)
  answerWith(addCommand(program, 'logout [registry]', 'forget the token of a registry'), logOut)
  answerWith(addCommand(program, 'whoami', 'whose token this is, and what it may do'), whoami)
}

async function logIn(session: Session, options: CommonOptions & { tokenStdin?: boolean }, address: string | undefined): Promise<Answer> {
  const { registry } = address === undefined ? await readConnection(options.registry) : { registry: checkRegistryUrl(address) }
  const token = (options.tokenStdin || !process.stdin.isTTY ? await readStdin() : await askToken(registry, session.signal)).trim()
  if (!/^\S+$/.test(token)) throw usageError('There is no token: type it in, or give one line on stdin with --token-stdin.')
  const me = await createRegistry({ registry, token }, session.signal).whoami()
  if (me.user === null) throw new CliError(EXIT.authentication, 'unauthenticated', `${registry} does not take this token. Nothing was stored.`)
  await storeLogin(registry, token)
  return { json: { registry, user: me.user.name, config: configPath() }, text: `Logged in to ${registry} as ${me.user.name}. The token is kept in ${configPath()}.` }
}

async function logOut(_session: Session, options: CommonOptions, address: string | undefined): Promise<Answer> {
  const { registry } = address === undefined ? await readConnection(options.registry) : { registry: checkRegistryUrl(address) }
  const forgotten = await forgetLogin(registry)
  return { json: { registry, forgotten }, text: forgotten ? `The token for ${registry} is forgotten here. It stays valid: revoke it with \`portllm token revoke\`.` : `There is no token for ${registry}.` }
}

async function whoami(session: Session): Promise<Answer> {
  const registry = await session.connect()
  const me = await registry.whoami()
  if (me.user === null) throw new CliError(EXIT.authentication, 'unauthenticated', `You are not logged in to ${registry.connection.registry}. Run \`portllm login\`, or set PORTLLM_TOKEN.`)
  return { json: { registry: registry.connection.registry, ...me }, text: describe(registry.connection.registry, me) }
}

function describe(registry: string, { user, token, organizations }: Whoami): string {
  return formatFields([
    ['registry', registry], ['user', `${user?.name}${user?.isAdmin ? ' (administrator)' : ''}`],
    ['token', token && `${token.scopes.join(', ')}${token.organization ? ` in ${token.organization}` : ''}${token.expiresAt ? `, until ${token.expiresAt}` : ''}`],
    ...organizations.map(({ name, role }) => ['organization', `${name} (${role})`] as const),
  ])
}

async function readStdin(): Promise<string> {
  let text = ''
  for await (const chunk of process.stdin.setEncoding('utf8')) text += chunk
  return text
}

async function askToken(registry: string, signal: AbortSignal): Promise<string> {
  process.stderr.write(`Token for ${registry} (it is not shown): `)
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: silent, terminal: true })
  lines.on('SIGINT', () => process.kill(process.pid, 'SIGINT'))
  try {
    return await lines.question('', { signal })
  } finally {
    lines.close()
    process.stderr.write('\n')
  }
}
