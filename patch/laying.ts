import type { LoraConfig } from './adapter-config.ts'
import type { Adapter } from './adapter.ts'
import type { Checkpoint } from './checkpoint.ts'
import type { RowRange } from './edit.ts'
import type { ManifestTensor } from './manifest.ts'
import type { Reason } from './resolution.ts'

/** What the one who asks for a merge may choose; the first of each is the default. */
export const ABSOLUTE_OPTIONS = ['difference', 'replace'] as const
export const TIED_OPTIONS = ['refuse', 'untie'] as const

export interface LayOptions {
  /**
   * What happens to full values in the adapter: `difference` adds what training changed, by the exact base; `replace`
   * writes them over what the target has learned.
   */
  readonly absolute: (typeof ABSOLUTE_OPTIONS)[number]
  /** Whether a model with tied embeddings may become one without, where a patch changes one end only. */
  readonly tied: (typeof TIED_OPTIONS)[number]
}

export const DEFAULT_OPTIONS: LayOptions = { absolute: 'difference', tied: 'refuse' }

/** An adapter being laid on a target. */
export interface Laying {
  readonly adapter: Adapter
  readonly config: LoraConfig
  readonly target: Checkpoint
  readonly base: Checkpoint | null
  readonly options: LayOptions
  readonly reasons: Reason[]
  /** Notes a refusal. */
  readonly refuse: (reason: Reason) => null
}

/** The tensor that a part of the adapter changes. */
export interface Landing {
  /** Its name in the merged model; another than the tensor's where a merge unties the embeddings. */
  readonly name: string
  readonly tensor: ManifestTensor
  /** Its rows that the part is for, of experts that lie in one tensor; null for all. */
  readonly rows: RowRange | null
  /** Whether the part is meant for both ends of tied embeddings. */
  readonly isShared: boolean
}
