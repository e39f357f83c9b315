import { and, asc, eq, sql } from 'drizzle-orm'
import { datasets, datasetVersions, organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { decodeCursor, toPage, type Page, type PageInput } from '../pagination.ts'
import { matchesWords } from '../search.ts'
import { datasetFamilyVisibleTo } from './find.ts'

export interface DatasetListItem { organization: string; name: string; description: string; visibility: 'public' | 'internal'; createdAt: string; latestVersion: string | null }
export interface ListDatasets extends PageInput { q?: string | undefined; organization?: string | undefined }

/** Datasets that the caller may see, by name. `q`: every word must be in the name or the description. */
export async function listDatasets({ ctx, input }: { ctx: RequestContext; input: ListDatasets }): Promise<Page<DatasetListItem>> {
  const after = decodeCursor(input.cursor, 2)
  const key = [sql<string>`lower(${organizations.name})`, sql<string>`lower(${datasets.name})`] as const
  const rows = await ctx.db
    .select({
      organization: organizations.name,
      name: datasets.name,
      description: datasets.description,
      visibility: datasets.visibility,
      createdAt: datasets.createdAt,
      latestVersion: sql<string | null>`(select ${datasetVersions.version} from ${datasetVersions} where ${datasetVersions.datasetId} = ${datasets.id} and ${datasetVersions.state} = 'published' order by ${datasetVersions.publishedAt} desc limit 1)`,
    })
    .from(datasets)
    .innerJoin(organizations, eq(organizations.id, datasets.organizationId))
    .where(
      and(
        datasetFamilyVisibleTo(ctx.db, ctx.principal),
        input.organization === undefined ? undefined : eq(key[0], input.organization.toLowerCase()),
        input.q === undefined ? undefined : matchesWords(input.q, sql`${organizations.name} || '/' || ${datasets.name} || ' ' || ${datasets.description}`),
        after === null ? undefined : sql`(${key[0]}, ${key[1]}) > (${after[0]!}, ${after[1]!})`,
      ),
    )
    .orderBy(asc(key[0]), asc(key[1]))
    .limit(input.limit + 1)
  return toPage(rows, input.limit, (row) => [row.organization.toLowerCase(), row.name.toLowerCase()], (row) => ({ ...row, createdAt: row.createdAt.toISOString() }))
}
