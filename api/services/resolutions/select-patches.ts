import { eq } from 'drizzle-orm'
import { distTags, patchMarks, patchVersions } from '../../../db/schema.ts'
import { DerivationError, MAX_PATCHES, checkWeight } from '../../../patch/derivation.ts'
import { parseReference, ReferenceError, selectVersion, type Reference } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { findPatch, type PatchVersionRow } from '../patches/find.ts'

export interface SelectedPatch {
  readonly reference: string
  readonly weight: number
  readonly version: PatchVersionRow
  readonly yanked: { readonly reason: string | null } | null
  readonly deprecated: string | null
}

/**
 * The patch versions that references such as `org/name@^1.2:0.5` pick, in their order. Throws `invalid_reference`,
 * `not_found` where nothing matches, and `yanked` for an exact version that was yanked: only its digest still works.
 */
export async function selectPatches({ ctx, references }: { ctx: RequestContext; references: readonly string[] }): Promise<SelectedPatch[]> {
  if (references.length === 0 || references.length > MAX_PATCHES) throw new ApiError('invalid_request', `Name 1 to ${MAX_PATCHES} patches as patch=org/name@range:weight, not ${references.length}.`)
  const selected: SelectedPatch[] = []
  for (const text of references) selected.push(await selectPatch(ctx, readReference(text)))
  const twice = selected.find((patch, index) => selected.findIndex((other) => other.version.id === patch.version.id) !== index)
  if (twice !== undefined) throw new ApiError('invalid_request', `${twice.reference} is named twice. Name it once, with the weight that you mean.`)
  return selected
}

/** Parses `org/name[@selector][:weight]`. Throws `invalid_reference`. */
export function readReference(text: string): Reference {
  try {
    const reference = parseReference(text)
    checkWeight(reference.weight)
    return reference
  } catch (error) {
    if (error instanceof ReferenceError || error instanceof DerivationError) throw new ApiError('invalid_reference', error.message)
    throw error
  }
}

async function selectPatch(ctx: RequestContext, reference: Reference): Promise<SelectedPatch> {
  const { organization, patch } = await findPatch({ ctx, organization: reference.organization, name: reference.name })
  const name = `${organization.name}/${patch.name}`
  const rows = await ctx.db
    .select({ id: patchVersions.id, version: patchVersions.version, state: patchVersions.state, yankedAt: patchMarks.yankedAt, yankReason: patchMarks.yankReason, deprecation: patchMarks.deprecation })
    .from(patchVersions)
    .leftJoin(patchMarks, eq(patchMarks.patchVersionId, patchVersions.id))
    .where(eq(patchVersions.patchId, patch.id))
  const published = rows.filter((row) => row.state === 'published').map((row) => ({ ...row, yanked: row.yankedAt !== null }))
  const tags = await ctx.db
    .select({ tag: distTags.tag, version: patchVersions.version })
    .from(distTags)
    .innerJoin(patchVersions, eq(patchVersions.id, distTags.patchVersionId))
    .where(eq(distTags.patchId, patch.id))
  const selection = selectVersion(reference.selector, published, Object.fromEntries(tags.map(({ tag, version }) => [tag, version])))
  if (selection.version === null) {
    const code = selection.reason === 'bad-selector' ? 'invalid_reference' : selection.reason === 'tag-is-yanked' ? 'yanked' : 'not_found'
    throw new ApiError(code, `${name}: ${selection.message}`)
  }
  const chosen = selection.version
  if (chosen.yanked) {
    throw new ApiError('yanked', `${name}@${chosen.version} was yanked${chosen.yankReason ? `: ${chosen.yankReason}` : ''}. Choose another version; a lockfile that names its digest still works.`)
  }
  const [version] = await ctx.db.select().from(patchVersions).where(eq(patchVersions.id, chosen.id))
  return { reference: `${name}@${chosen.version}`, weight: reference.weight, version: version!, yanked: null, deprecated: chosen.deprecation }
}
