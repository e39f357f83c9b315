import type { RequestContext } from '../../context.ts'
import { ApiError, notFound } from '../../errors.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import { readReference } from '../resolutions/select-patches.ts'
import { findOrganization } from './find.ts'

/**
 * The organization of data that runners have in a folder `organization/name`: it is for its members, and to others does
 * not exist. Whether a runner has it, its job finds out. Returns the organization's id. Throws `not_found`.
 */
export async function findDataOwner({ ctx, data }: { ctx: RequestContext; data: string }): Promise<string> {
  const { organization, name, selector, weight } = readReference(data)
  if (selector !== null || weight !== 1) throw new ApiError('invalid_reference', `${data} is no name of data: write organization/name.`)
  const owner = await findOrganization({ ctx, name: organization }).catch(() => null)
  if (owner === null || !mayReadInternal(ctx.principal, owner.id)) throw notFound('The data', `${organization}/${name}`)
  return owner.id
}
