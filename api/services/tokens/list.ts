import { and, desc, eq, sql } from 'drizzle-orm'
import { organizations, tokens } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { assertMayManageTokens } from '../authorization/authorize.ts'
import { decodeTimeCursor, toPage, type Page, type PageInput } from '../pagination.ts'
import { ofReachableTokens } from './reachable.ts'
import { toTokenView, type TokenView } from './token-view.ts'

/** The caller's tokens, newest first. */
export async function listTokens({ ctx, input }: { ctx: RequestContext; input: PageInput }): Promise<Page<TokenView>> {
  assertMayManageTokens(ctx.principal)
  const after = decodeTimeCursor(input.cursor)
  const rows = await ctx.db
    .select({ token: tokens, organization: organizations.name })
    .from(tokens)
    .leftJoin(organizations, eq(organizations.id, tokens.organizationId))
    .where(and(ofReachableTokens(ctx.principal), after === null ? undefined : sql`(date_trunc('milliseconds', ${tokens.createdAt}), ${tokens.id}) < (${after.at.toISOString()}::timestamptz, ${after.id}::uuid)`))
    .orderBy(desc(sql`date_trunc('milliseconds', ${tokens.createdAt})`), desc(tokens.id))
    .limit(input.limit + 1)
  return toPage(rows, input.limit, (row) => [row.token.createdAt.toISOString(), row.token.id], (row) => toTokenView(row.token, row.organization))
}
