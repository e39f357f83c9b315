import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { findPatch } from './find.ts'

/** Throws `not_found` also where the newest version has no README. */
export async function readPatchReadme({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string } }): Promise<string> {
  const { patch } = await findPatch({ ctx, ...input })
  if (patch.readme === null) throw notFound('The README of', `${input.organization}/${input.name}`)
  return patch.readme
}
