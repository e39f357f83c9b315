import { analysisPicture } from '../../../patch/analysis-picture.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { findVisibleAnalysis } from './find-visible.ts'

/** The picture of a finished analysis, as SVG. Throws `wrong_state` where it has not been measured yet. */
export async function drawAnalysis({ ctx, input }: { ctx: RequestContext; input: { id: string } }): Promise<{ svg: string; isPublic: boolean }> {
  const { analysis, isPublic } = await findVisibleAnalysis({ ctx, id: input.id })
  if (analysis.result === null) throw new ApiError('wrong_state', 'The analysis has not run yet: there is nothing to draw. Watch its job, then ask again.')
  return { svg: analysisPicture(analysis.result), isPublic }
}
