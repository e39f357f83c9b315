import { and, asc, eq, exists, sql } from 'drizzle-orm'
import { distTags, models, modelVersions, organizations, patches, patchVersions } from '../../../db/schema.ts'
import { parseReference } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { findModel } from '../models/find.ts'
import { decodeCursor, toPage, type Page, type PageInput } from '../pagination.ts'
import { matchesWords } from '../search.ts'
import { patchFamilyVisibleTo } from './find.ts'

export interface PatchListItem { organization: string; name: string; description: string; visibility: 'public' | 'internal'; createdAt: string; latestVersion: string | null }
export interface ListPatches extends PageInput { q?: string | undefined; organization?: string | undefined; base?: string | undefined }

/** Patches that the caller may see, by name. `base`: those with a version trained on any version of that model. */
export async function listPatches({ ctx, input }: { ctx: RequestContext; input: ListPatches }): Promise<Page<PatchListItem>> {
  const after = decodeCursor(input.cursor, 2)
  const base = input.base === undefined ? undefined : await findModel({ ctx, ...parseReference(input.base) })
  const key = [sql<string>`lower(${organizations.name})`, sql<string>`lower(${patches.name})`] as const
  const onBase = ctx.db
    .select({ one: sql`1` })
    .from(patchVersions)
    .innerJoin(modelVersions, eq(modelVersions.id, patchVersions.baseVersionId))
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .where(and(eq(patchVersions.patchId, patches.id), eq(patchVersions.state, 'published'), base && eq(models.id, base.model.id)))
  const rows = await ctx.db
    .select({
      organization: organizations.name,
      name: patches.name,
      description: patches.description,
      visibility: patches.visibility,
      createdAt: patches.createdAt,
      latestVersion: sql<string | null>`(select ${patchVersions.version} from ${distTags} join ${patchVersions} on ${patchVersions.id} = ${distTags.patchVersionId} where ${distTags.patchId} = ${patches.id} and ${distTags.tag} = 'latest')`,
    })
    .from(patches)
    .innerJoin(organizations, eq(organizations.id, patches.organizationId))
    .where(
      and(
        patchFamilyVisibleTo(ctx.db, ctx.principal),
        input.organization === undefined ? undefined : eq(key[0], input.organization.toLowerCase()),
        input.q === undefined ? undefined : matchesWords(input.q, sql`${organizations.name} || '/' || ${patches.name} || ' ' || ${patches.description}`),
        base === undefined ? undefined : exists(onBase),
        after === null ? undefined : sql`(${key[0]}, ${key[1]}) > (${after[0]!}, ${after[1]!})`,
      ),
    )
    .orderBy(asc(key[0]), asc(key[1]))
    .limit(input.limit + 1)
  return toPage(rows, input.limit, (row) => [row.organization.toLowerCase(), row.name.toLowerCase()], (row) => ({ ...row, createdAt: row.createdAt.toISOString() }))
}
