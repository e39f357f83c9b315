import type { AdapterEdits } from './edits.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'

/** Refusals for what is read but not yet merged by runner and command line. */
export function notYetMerged({ untied }: Pick<AdapterEdits, 'untied'>): Reason[] {
  const reasons: Reason[] = []
  const refuse = (code: Reason['code'], title: string, tensor: string) => reasons.push(refusal(code, `The adapter needs ${title}, which this registry cannot do yet.`, { tensor, remedy: 'Train and publish a plain LoRA instead.' }))
  if (untied !== null) refuse('tied-weights', 'untied embeddings', untied.name)
  return reasons
}
