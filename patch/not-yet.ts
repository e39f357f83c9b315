import type { AdapterEdits } from './edits.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'

/** Refusals for what is read but not yet merged by runner and command line. */
export function notYetMerged({ edits, untied }: Pick<AdapterEdits, 'edits' | 'untied'>): Reason[] {
  const reasons: Reason[] = []
  const refuse = (code: Reason['code'], title: string, tensor: string) => reasons.push(refusal(code, `The adapter needs ${title}, which this registry cannot do yet.`, { tensor, remedy: 'Train and publish a plain LoRA instead.' }))
  for (const edit of edits) {
    if (edit.kind === 'additive' && edit.initial !== null) refuse('base-changing-initialisation', 'the base for its initialisation', edit.target)
  }
  if (untied !== null) refuse('tied-weights', 'untied embeddings', untied.name)
  return reasons
}
