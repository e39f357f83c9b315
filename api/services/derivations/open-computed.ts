import type { TensorExtent } from '../../../patch/extent.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { TensorMerger } from '../../ports/tensor-merger.ts'
import { locateTensors } from './locate-tensors.ts'
import { planMerge } from './plan-merge.ts'
import { servingObstacle } from './storage.ts'

/** A range of a changed tensor, computed on the way out. Throws `unavailable` where this registry cannot. */
export async function openComputed({ ctx, derivationId, extent: { tensor, offset, length }, signal, reuse }: {
  ctx: Pick<RequestContext, 'db' | 'merger'>
  derivationId: string
  extent: TensorExtent
  signal: AbortSignal
  reuse: boolean
}): Promise<ReadableStream<Uint8Array>> {
  const merger = await requireMerger(ctx, derivationId)
  const locate = async () => locateTensors(await planMerge({ db: ctx.db, derivationId }))
  return merger.open({ derivation: derivationId, locate, tensor, range: { offset, length }, signal, reuse })
}

/** Throws `unavailable` where this registry computes nothing: with what to do about it. */
export async function requireMerger({ merger }: Pick<RequestContext, 'merger'>, derivationId: string): Promise<TensorMerger> {
  const obstacle = await servingObstacle({ merger })
  if (merger !== null && obstacle === null) return merger
  throw new ApiError('unavailable', `The merged model ${derivationId} is computed when it is fetched, which this registry cannot do now. ${obstacle} Have it materialised: PUT /v1/derivations/${derivationId}/storage with {"storage":"materialised"}.`)
}
