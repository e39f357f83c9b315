import { Argument, type Command } from 'commander'
import type { MergeStorage } from '../../patch/merge-storage.ts'
import { usageError } from '../exit.ts'
import { describeStorage } from '../format.ts'
import { changeStorage } from '../get-source.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

export function addStorage(program: Command): void {
  const command = addCommand(program, 'storage <derivation>', 'keep the changed tensors of a merged model, or compute them for every fetch')
    .addArgument(new Argument('<storage>', 'how it is kept from now on').choices(['computed', 'materialised']))
    .addHelpText('after', `
Its bytes stay the same. "computed" frees the space with the next garbage collection; "materialised" runs the merge again and keeps what it gives.
It is for who may publish to the organization of the target.

Example:
  portllm storage 4f1c… materialised`)
  answerWith(command, (session, _options: CommonOptions, id: string, storage: MergeStorage) => setStorage(session, id, storage))
}

async function setStorage(session: Session, text: string, storage: MergeStorage): Promise<Answer> {
  const id = text.replace('sha256:', '')
  if (!/^[0-9a-f]{64}$/.test(id)) throw usageError(`${text} is not the id of a derivation: "portllm get" and "portllm info" tell it, 64 hex digits.`)
  const merged = await changeStorage(await session.connect(), id, storage, session.quiet)
  return { json: { derivation: id, storage: merged.storage, storageReason: merged.storageReason, storedBytes: merged.storedBytes }, text: `${id}: ${describeStorage(merged)}` }
}
