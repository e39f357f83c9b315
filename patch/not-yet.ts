import type { AdapterEdits } from './edits.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'

/** Refusals for what is read but not yet merged by runner and command line. */
export function notYetMerged({ untied }: Pick<AdapterEdits, 'untied'>): Reason[] {
  if (untied === null) return []
  return [refusal('tied-weights', 'The adapter needs untied embeddings, which this registry cannot do yet.', { tensor: untied.name, remedy: 'Train and publish a plain LoRA instead.' })]
}
