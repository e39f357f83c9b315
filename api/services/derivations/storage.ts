import { chooseStorage, computedObstacle, type MergeStorage } from '../../../patch/merge-storage.ts'
import type { TensorPlan } from '../../../patch/merge-plan.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'

export const NO_MERGER = 'No merge core runs where this registry answers.'
export const ASKED_FOR = 'It was asked for.'

/** Why nothing is computed on read here, as a sentence, or null. */
export async function servingObstacle({ merger }: Pick<RequestContext, 'merger'>): Promise<string | null> {
  return merger === null ? NO_MERGER : merger.obstacle()
}

/** How a merge will be kept: as asked, or what suits it. Throws `invalid_request` and `unavailable` where it was asked to be computed and cannot be. */
export function settleStorage({ asked, tensors, obstacle }: { asked: MergeStorage | undefined; tensors: readonly TensorPlan[]; obstacle: string | null }): { storage: MergeStorage; storageReason: string } {
  if (asked === undefined) {
    const { storage, reason } = chooseStorage(tensors, obstacle)
    return { storage, storageReason: reason }
  }
  if (asked === 'computed') assertComputable(tensors, obstacle)
  return { storage: asked, storageReason: ASKED_FOR }
}

export function assertComputable(tensors: readonly TensorPlan[], obstacle: string | null): void {
  if (obstacle !== null) throw new ApiError('unavailable', `${obstacle} So nothing can be computed when it is fetched: ask for the storage materialised.`)
  const found = computedObstacle(tensors)
  if (found !== null) throw new ApiError('invalid_request', `${found} So this merge cannot be computed when it is fetched: ask for the storage materialised.`)
}
