import type { Command } from 'commander'
import { formatTable } from '../format.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

export function addOrg(program: Command): void {
  const group = program.command('org').summary('organizations, which own models, patches and datasets').description('Organizations, which own models, patches and datasets.')
    .addHelpText('after', '\nExamples:\n  portllm org create hospital --display-name "Hospital of St. Anne"\n  portllm org ls')
  answerWith(addCommand(group, 'create <name>', 'make an organization').option('--display-name <text>', 'its name for people'), create)
  answerWith(addCommand(group, 'ls', 'list the organizations that you may see'), list)
}

async function create(session: Session, { displayName }: CommonOptions & { displayName?: string }, name: string): Promise<Answer> {
  const organization = await (await session.connect()).createOrganization({ name, displayName })
  return { json: organization, text: `Created the organization ${organization.name}.` }
}

async function list(session: Session): Promise<Answer> {
  const { items, nextCursor } = await (await session.connect()).listOrganizations({ limit: 200 })
  if (nextCursor !== null) session.note('There are more than 200.')
  return { json: items, text: formatTable(['NAME', 'DISPLAY NAME', 'CREATED'], items.map(({ name, displayName, createdAt }) => [name, displayName, createdAt])) }
}
