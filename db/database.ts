import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import type * as schema from './schema.ts'

/** Either driver, or a transaction of either. */
export type Database = PgDatabase<PgQueryResultHKT, typeof schema>
