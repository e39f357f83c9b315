import { and, sql, type SQL } from 'drizzle-orm'

/** Of what somebody typed; more words would only make the query slower. */
const MAX_WORDS = 8

/** True where every word of `query` is somewhere in `text`, whatever its case. */
export function matchesWords(query: string, text: SQL): SQL | undefined {
  const words = query.split(/\s+/).filter((word) => word !== '').slice(0, MAX_WORDS)
  return and(...words.map((word) => sql`${text} ilike ${`%${word.replace(/[\\%_]/g, '\\$&')}%`}`))
}
