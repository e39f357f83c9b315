import type { Command } from 'commander'
import { exactPatchVersion } from '../references.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

export function addYank(program: Command): void {
  const yanking = addCommand(program, 'yank <org/name@version>', 'take a patch version out of ranges and tags')
    .requiredOption('--reason <text>', 'why; shown to everybody who resolves it')
    .addHelpText('after', `
Nothing is deleted: a lockfile still gets the same bytes. Whoever asks for the version by its number is told why it was
yanked.

Example:
  portllm yank hospital/triage@1.0.1 --reason "trained on the wrong labels"`)
  answerWith(yanking, yank)
  answerWith(addCommand(program, 'unyank <org/name@version>', 'undo a yank'), unyank)
}

async function yank(session: Session, { reason }: CommonOptions & { reason: string }, text: string): Promise<Answer> {
  const version = exactPatchVersion(text)
  await (await session.connect()).yank(version, reason)
  return { json: { reference: text, yanked: true, reason }, text: `${text} is yanked.` }
}

async function unyank(session: Session, _options: CommonOptions, text: string): Promise<Answer> {
  const version = exactPatchVersion(text)
  await (await session.connect()).unyank(version)
  return { json: { reference: text, yanked: false }, text: `${text} is not yanked any more.` }
}
