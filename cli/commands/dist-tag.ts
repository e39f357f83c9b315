import type { Command } from 'commander'
import { formatTable } from '../format.ts'
import { exactPatchVersion, familyName } from '../references.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

export function addDistTag(program: Command): void {
  const group = program.command('dist-tag').summary('names such as latest or next for versions of a patch').description('Names such as latest or next for versions of a patch.')
    .addHelpText('after', '\nExamples:\n  portllm dist-tag ls hospital/triage\n  portllm dist-tag add hospital/triage@1.1.0-rc.1 next\n  portllm dist-tag rm hospital/triage next')
  answerWith(addCommand(group, 'ls <org/name>', 'list the tags'), list)
  answerWith(addCommand(group, 'add <org/name@version> <tag>', 'make a tag point at a version'), add)
  answerWith(addCommand(group, 'rm <org/name> <tag>', 'remove a tag'), remove)
}

async function list(session: Session, _options: CommonOptions, text: string): Promise<Answer> {
  const { organization, name } = familyName(text)
  const { distTags } = await (await session.connect()).getPatch(organization, name)
  return { json: distTags, text: formatTable(['TAG', 'VERSION'], Object.entries(distTags)) }
}

async function add(session: Session, _options: CommonOptions, text: string, tag: string): Promise<Answer> {
  const { organization, name, version } = exactPatchVersion(text)
  await (await session.connect()).setDistTag(organization, name, tag, version)
  return { json: { name: `${organization}/${name}`, tag, version }, text: `${tag} → ${text}` }
}

async function remove(session: Session, _options: CommonOptions, text: string, tag: string): Promise<Answer> {
  const { organization, name } = familyName(text)
  await (await session.connect()).removeDistTag(organization, name, tag)
  return { json: { name: text, tag, removed: true }, text: `${text} has no tag ${tag} any more.` }
}
