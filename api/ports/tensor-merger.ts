import type { MergeableDtype, TargetDtype } from '../../patch/dtype.ts'
import type { Extent } from '../../patch/extent.ts'
import type { Block } from '../../patch/merge-plan.ts'
import type { ByteRange } from './blob-store.ts'

/** Numbers of one dtype in a blob. */
export interface LocatedBytes extends Extent {
  readonly dtype: TargetDtype
}

/** A tensor that a merge changes, with all that it is made of located in blobs. */
export interface LocatedTensor {
  readonly name: string
  readonly dtype: TargetDtype
  readonly rows: number
  readonly cols: number
  readonly source: Extent
  readonly factors: readonly (LocatedBytes & { readonly dtype: MergeableDtype })[]
  readonly blocks: readonly Block<LocatedBytes>[]
}

/** The native merge core where the registry itself has one: what merge on read needs. */
export interface TensorMerger {
  /** Null where it can merge; otherwise why not, as a sentence. */
  obstacle(): Promise<string | null>
  /**
   * A range of one tensor's merged bytes, computed as fast as they are read; only the rows that it covers are.
   * `locate` gives the derivation's tensors, which are asked for once and kept a while. Cancelling lets go of everything.
   * With `reuse`, a chunk's memory is written again once the next one is asked for.
   */
  open(asked: {
    derivation: string
    locate: () => Promise<readonly LocatedTensor[]>
    /** Its place among the tensors that the merge changes. */
    tensor: number
    range: ByteRange
    signal: AbortSignal
    reuse: boolean
  }): Promise<ReadableStream<Uint8Array>>
}
