import { newReceipt, type Receipt } from '../../../patch/receipt.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { findVisibleDerivation } from './find-visible.ts'

/** The receipt of a merged model, for whoever may see every input of it. Throws `wrong_state` before the merge has run. */
export async function readReceipt({ ctx, id }: { ctx: RequestContext; id: string }): Promise<{ receipt: Receipt; isPublic: boolean }> {
  const { recipe, receipt, visibility } = await findVisibleDerivation({ ctx, id })
  if (receipt === null) throw new ApiError('wrong_state', 'The merge has not run yet: there is no receipt. Watch its job, then ask again.')
  return { receipt: newReceipt({ derivation: id, recipe, engine: receipt.engine, tensors: receipt.tensors }), isPublic: visibility === 'public' }
}
