import type { Command } from 'commander'
import { exactPatchVersion } from '../references.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

export function addDeprecate(program: Command): void {
  const deprecating = addCommand(program, 'deprecate <org/name@version> <message>', 'warn everybody who resolves a patch version')
    .addHelpText('after', '\nExample:\n  portllm deprecate hospital/triage@1.0.0 "use 2.x, which knows the new codes"')
  answerWith(deprecating, deprecate)
  answerWith(addCommand(program, 'undeprecate <org/name@version>', 'take the warning back'), undeprecate)
}

async function deprecate(session: Session, _options: CommonOptions, text: string, message: string): Promise<Answer> {
  const version = exactPatchVersion(text)
  await (await session.connect()).deprecate(version, message)
  return { json: { reference: text, deprecated: message }, text: `${text} is deprecated.` }
}

async function undeprecate(session: Session, _options: CommonOptions, text: string): Promise<Answer> {
  const version = exactPatchVersion(text)
  await (await session.connect()).undeprecate(version)
  return { json: { reference: text, deprecated: null }, text: `${text} is not deprecated any more.` }
}
