import { and, asc, eq, sql } from 'drizzle-orm'
import { models, modelVersions, organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { decodeCursor, toPage, type Page, type PageInput } from '../pagination.ts'
import { matchesWords } from '../search.ts'
import { modelFamilyVisibleTo } from './find.ts'

export interface ModelListItem { organization: string; name: string; description: string; visibility: 'public' | 'internal'; createdAt: string; latestVersion: string | null }
export interface ListModels extends PageInput { q?: string | undefined; organization?: string | undefined }

/** Models that the caller may see, by name. `q`: every word must be in the name or the description. */
export async function listModels({ ctx, input }: { ctx: RequestContext; input: ListModels }): Promise<Page<ModelListItem>> {
  const after = decodeCursor(input.cursor, 2)
  const key = [sql<string>`lower(${organizations.name})`, sql<string>`lower(${models.name})`] as const
  const rows = await ctx.db
    .select({
      organization: organizations.name,
      name: models.name,
      description: models.description,
      visibility: models.visibility,
      createdAt: models.createdAt,
      latestVersion: sql<string | null>`(select ${modelVersions.version} from ${modelVersions} where ${modelVersions.modelId} = ${models.id} and ${modelVersions.state} = 'published' order by ${modelVersions.publishedAt} desc limit 1)`,
    })
    .from(models)
    .innerJoin(organizations, eq(organizations.id, models.organizationId))
    .where(
      and(
        modelFamilyVisibleTo(ctx.db, ctx.principal),
        input.organization === undefined ? undefined : eq(key[0], input.organization.toLowerCase()),
        input.q === undefined ? undefined : matchesWords(input.q, sql`${organizations.name} || '/' || ${models.name} || ' ' || ${models.description}`),
        after === null ? undefined : sql`(${key[0]}, ${key[1]}) > (${after[0]!}, ${after[1]!})`,
      ),
    )
    .orderBy(asc(key[0]), asc(key[1]))
    .limit(input.limit + 1)
  return toPage(rows, input.limit, (row) => [row.organization.toLowerCase(), row.name.toLowerCase()], (row) => ({ ...row, createdAt: row.createdAt.toISOString() }))
}
