import { and, asc, gt, sql } from 'drizzle-orm'
import { organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { decodeCursor, toPage, type Page, type PageInput } from '../pagination.ts'
import { organizationVisibleTo } from './find.ts'
import { toOrganizationView, type OrganizationView } from './organization-view.ts'

/** What the caller may see, by name. */
export async function listOrganizations({ ctx, input }: { ctx: RequestContext; input: PageInput }): Promise<Page<OrganizationView>> {
  const after = decodeCursor(input.cursor, 1)
  const key = sql<string>`lower(${organizations.name})`
  const rows = await ctx.db
    .select()
    .from(organizations)
    .where(and(organizationVisibleTo(ctx.db, ctx.principal), after === null ? undefined : gt(key, after[0]!)))
    .orderBy(asc(key))
    .limit(input.limit + 1)
  return toPage(rows, input.limit, (row) => [row.name.toLowerCase()], toOrganizationView)
}
