import { and, eq, exists, inArray, or, sql, type SQL } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { patches, patchVersions, organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import type { Principal } from '../authorization/principal.ts'
import { ofOwnOrganization, visibleTo } from '../authorization/visibility.ts'
import { patchVersionColumns, withPatchManifest } from '../manifests.ts'
import type { OrganizationRow } from '../organizations/find.ts'

export type PatchRow = typeof patches.$inferSelect
export type PatchVersionRow = typeof patchVersions.$inferSelect
export interface FoundPatch { organization: OrganizationRow; patch: PatchRow }
export interface FoundPatchVersion extends FoundPatch { version: PatchVersionRow; reference: string }

/** A family with nothing published in it is seen by its organization only. */
export function patchFamilyVisibleTo(db: Database, principal: Principal): SQL {
  const published = db.select({ one: sql`1` }).from(patchVersions).where(and(eq(patchVersions.patchId, patches.id), eq(patchVersions.state, 'published')))
  return or(and(eq(patches.visibility, 'public'), exists(published)), ofOwnOrganization(principal, patches.organizationId))!
}

interface Scope { ctx: Pick<RequestContext, 'db' | 'principal'>; tx?: Database }

/** By names, whatever their case. Throws `not_found` also for one that the caller may not see. */
export async function findPatch({ ctx, tx, organization, name }: Scope & { organization: string; name: string }): Promise<FoundPatch> {
  const db = tx ?? ctx.db
  const [row] = await db
    .select({ organization: organizations, patch: patches })
    .from(patches)
    .innerJoin(organizations, eq(organizations.id, patches.organizationId))
    .where(and(eq(sql`lower(${organizations.name})`, organization.toLowerCase()), eq(sql`lower(${patches.name})`, name.toLowerCase()), patchFamilyVisibleTo(db, ctx.principal)))
  if (row === undefined) throw notFound('The patch', `${organization}/${name}`)
  return row
}

/**
 * One version of a patch. Only its organization sees a version before it is published.
 * Throws `not_found` also for one that the caller may not see.
 */
export async function findPatchVersion({ ctx, tx, organization, name, version }: Scope & { organization: string; name: string; version: string }): Promise<FoundPatchVersion> {
  const db = tx ?? ctx.db
  const [row] = await db
    .select({ organization: organizations, patch: patches, version: patchVersionColumns })
    .from(patchVersions)
    .innerJoin(patches, eq(patches.id, patchVersions.patchId))
    .innerJoin(organizations, eq(organizations.id, patches.organizationId))
    .where(
      and(
        eq(sql`lower(${organizations.name})`, organization.toLowerCase()),
        eq(sql`lower(${patches.name})`, name.toLowerCase()),
        eq(sql`lower(${patchVersions.version})`, version.toLowerCase()),
        visibleTo(ctx.principal, patches),
      ),
    )
  if (row === undefined || (row.version.state !== 'published' && !mayReadInternal(ctx.principal, row.organization.id))) {
    throw notFound('The patch version', `${organization}/${name}@${version}`)
  }
  return { ...row, version: await withPatchManifest(db, row.version), reference: `${row.organization.name}/${row.patch.name}@${row.version.version}` }
}

/** `org/name@version` of versions by id, for an answer about something else that names them. */
export async function patchVersionReferences(db: Database, ids: readonly string[]): Promise<Map<string, string>> {
  if (ids.length === 0) return new Map()
  const rows = await db
    .select({ id: patchVersions.id, organization: organizations.name, name: patches.name, version: patchVersions.version })
    .from(patchVersions)
    .innerJoin(patches, eq(patches.id, patchVersions.patchId))
    .innerJoin(organizations, eq(organizations.id, patches.organizationId))
    .where(inArray(patchVersions.id, [...new Set(ids)]))
  return new Map(rows.map((row) => [row.id, `${row.organization}/${row.name}@${row.version}`]))
}

export async function patchVersionReference(db: Database, id: string): Promise<string | null> {
  return (await patchVersionReferences(db, [id])).get(id) ?? null
}
