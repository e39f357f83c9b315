import type { Dependencies } from '../../context.ts'

/** What a collection has removed of one kind, or would remove. */
export interface Removed {
  objects: number
  bytes: number
}

export interface Collection {
  readonly ctx: Pick<Dependencies, 'db' | 'blobs'>
  /** What was written since then stays. */
  readonly before: Date
  /** Only counts. */
  readonly dryRun: boolean
}
