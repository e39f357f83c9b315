import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import * as schema from '../db/schema.ts'
import type { RequestContext } from '../api/context.ts'
import { resolvePatches } from '../api/services/resolutions/resolve.ts'

/** Every query that an anonymous resolution sends, with the plan that PostgreSQL ran and what it read. */
export async function explainResolve(url: string, input: { target: string; patches: readonly string[] }): Promise<string> {
  const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => {} })
  const queries: { query: string; params: unknown[] }[] = []
  const db = drizzle(sql, { schema, logger: { logQuery: (query, params) => void queries.push({ query, params }) } })
  try {
    await resolvePatches({ ctx: { db, immutableDb: db, principal: { kind: 'anonymous' } } as unknown as RequestContext, input })
    const parts = [`resolve ${input.patches.join(' + ')} onto ${input.target}: ${queries.length} queries`]
    for (const { query, params } of queries) {
      const plan = await sql.unsafe(`explain (analyze, buffers, costs off, timing off) ${query}`, params as never[])
      parts.push(query, plan.map((row) => `  ${row['QUERY PLAN']}`).join('\n'))
    }
    return `${parts.join('\n\n')}\n`
  } finally {
    await sql.end()
  }
}
