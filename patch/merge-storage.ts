import { largest } from './largest.ts'
import type { TensorPlan } from './merge-plan.ts'
import { packedBytes } from './packed-bytes.ts'

/** How the changed tensors of a merged model are kept: not at all, and computed at every fetch, or as blobs. */
export type MergeStorage = 'computed' | 'materialised'

/**
 * The largest total rank on a tensor up to which computing is chosen by itself. One core merges bf16 rows at about 4 GB/s
 * at rank 8 and 1.4 GB/s at rank 64, beside about 1 GB/s at which files are sent: up to here computing hides behind
 * sending (bench/README.md, "Serving").
 */
export const MAX_COMPUTED_RANK = 32
/** Most memory for one tensor's factors, as the core packs them, for which computing on read is possible at all. */
export const MAX_PACKED_BYTES = 24 * 1024 * 1024

/** Why this merge cannot be computed row by row when it is fetched, as a sentence; null where it can. */
export function computedObstacle(tensors: readonly TensorPlan[]): string | null {
  for (const { name, cols, blocks } of tensors) {
    let packed = 0
    for (const { count, contributions } of blocks) {
      for (const one of contributions) {
        if (one.kind === 'dora' && one.axis === 'columns') return `A DoRA patch normalises the columns of ${name}, so that every row depends on all others.`
        if (one.kind === 'initial') return `What ${one.method === 'pissa' ? 'PiSSA' : 'OLoRA'} began with on ${name} has to be made from the whole tensor of the base.`
      }
      packed += packedBytes(count, cols, contributions)
    }
    if (packed > MAX_PACKED_BYTES) return `The factors of ${name} take ${Math.ceil(packed / 2 ** 20)} MiB of memory, more than the ${MAX_PACKED_BYTES / 2 ** 20} that an answer may hold.`
  }
  return null
}

/** What suits the merge, and why, as a sentence. `obstacle`: why nothing can be computed where it is served, or null. */
export function chooseStorage(tensors: readonly TensorPlan[], obstacle: string | null): { storage: MergeStorage; reason: string } {
  const found = obstacle ?? computedObstacle(tensors)
  if (found !== null) return { storage: 'materialised', reason: found }
  const { name, rank } = tensors.map((tensor) => ({ name: tensor.name, rank: totalRank(tensor) })).reduce((a, b) => (b.rank > a.rank ? b : a))
  if (rank > MAX_COMPUTED_RANK) return { storage: 'materialised', reason: `The total rank of ${rank} on ${name} is above ${MAX_COMPUTED_RANK}, so computing it at every fetch would be slower than sending it.` }
  return { storage: 'computed', reason: `The total rank on a tensor is at most ${rank}, so computing keeps up with sending.` }
}

/** Of all contributions to one block, at most. */
function totalRank({ blocks }: TensorPlan): number {
  return largest(blocks.map(({ contributions }) => contributions.reduce((sum, one) => sum + ('rank' in one ? one.rank : 0), 0)))
}
