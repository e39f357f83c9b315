import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { findDatasetVersion } from '../datasets/find.ts'
import { findDataOwner } from '../organizations/find-data-owner.ts'
import { readReference } from '../resolutions/select-patches.ts'

export interface TrainingData {
  /** As the training's spec names it. */
  readonly data: string | null
  readonly datasetVersionId: string | null
}

/**
 * What a training learns from: with a version a dataset of the registry, without one a folder that runners have, and the
 * Hub where nothing is named. Throws `not_found` also for what the caller may not see, and `wrong_state` for a version
 * that is not published.
 */
export async function findTrainingData({ ctx, data }: { ctx: RequestContext; data: string | null }): Promise<TrainingData> {
  if (data === null) return { data, datasetVersionId: null }
  const { organization, name, selector, weight } = readReference(data)
  if (selector === null || weight !== 1) {
    await findDataOwner({ ctx, data })
    return { data, datasetVersionId: null }
  }
  const { version, reference } = await findDatasetVersion({ ctx, organization, name, version: selector })
  if (version.state !== 'published') throw new ApiError('wrong_state', `The dataset ${reference} is not published yet (${version.state}). Publish it first.`)
  return { data: reference, datasetVersionId: version.id }
}
