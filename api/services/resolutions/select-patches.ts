import { and, eq, sql } from 'drizzle-orm'
import { distTags, organizations, patches, patchMarks, patchVersions } from '../../../db/schema.ts'
import { DerivationError, MAX_PATCHES, checkWeight } from '../../../patch/derivation.ts'
import { parseReference, ReferenceError, selectVersion, type Reference } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { visibleTo } from '../authorization/visibility.ts'
import { patchVersionColumns, withPatchManifest } from '../manifests.ts'
import { findPatch, type PatchVersionRow } from '../patches/find.ts'
import { inOrder } from './in-order.ts'

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
  const selected = await inOrder(references.map(readReference), (reference) => selectPatch(ctx, reference))
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
  const named = and(
    eq(sql`lower(${organizations.name})`, reference.organization.toLowerCase()), eq(sql`lower(${patches.name})`, reference.name.toLowerCase()), visibleTo(ctx.principal, patches),
  )
  const [rows, tags] = await Promise.all([
    ctx.db
      .select({ organization: organizations.name, patch: patches.name, row: patchVersionColumns, marks: patchMarks })
      .from(patchVersions)
      .innerJoin(patches, eq(patches.id, patchVersions.patchId))
      .innerJoin(organizations, eq(organizations.id, patches.organizationId))
      .leftJoin(patchMarks, eq(patchMarks.patchVersionId, patchVersions.id))
      .where(and(named, eq(patchVersions.state, 'published'))),
    ctx.db
      .select({ tag: distTags.tag, version: patchVersions.version })
      .from(distTags)
      .innerJoin(patchVersions, eq(patchVersions.id, distTags.patchVersionId))
      .innerJoin(patches, eq(patches.id, distTags.patchId))
      .innerJoin(organizations, eq(organizations.id, patches.organizationId))
      .where(named),
  ])
  const published = rows.map(({ row, marks }) => ({ row, version: row.version, yanked: marks !== null && marks.yankedAt !== null, marks }))
  const name = rows[0] === undefined ? await patchName(ctx, reference) : `${rows[0].organization}/${rows[0].patch}`
  const selection = selectVersion(reference.selector, published, Object.fromEntries(tags.map(({ tag, version }) => [tag, version])))
  if (selection.version === null) {
    const code = selection.reason === 'bad-selector' ? 'invalid_reference' : selection.reason === 'tag-is-yanked' ? 'yanked' : 'not_found'
    throw new ApiError(code, `${name}: ${selection.message}`)
  }
  const { row, yanked, marks } = selection.version
  if (yanked) {
    throw new ApiError('yanked', `${name}@${row.version} was yanked${marks?.yankReason ? `: ${marks.yankReason}` : ''}. Choose another version; a lockfile that names its digest still works.`)
  }
  return { reference: `${name}@${row.version}`, weight: reference.weight, version: await withPatchManifest(ctx.db, row), yanked: null, deprecated: marks?.deprecation ?? null }
}

/** Of a patch without published versions. Throws `not_found` also for one that the caller may not see. */
async function patchName(ctx: RequestContext, reference: Reference): Promise<string> {
  const { organization, patch } = await findPatch({ ctx, organization: reference.organization, name: reference.name })
  return `${organization.name}/${patch.name}`
}
