import { is, sql, type SQL } from 'drizzle-orm'
import { getTableConfig, PgTable, type PgColumn } from 'drizzle-orm/pg-core'
import type { Database } from '../../../db/database.ts'
import * as schema from '../../../db/schema.ts'
import { isReachable } from '../blobs/references.ts'

export interface TransferTable {
  readonly name: string
  readonly table: PgTable
  readonly key: readonly PgColumn[]
  /** Columns whose values a sequence gives. */
  readonly serial: readonly PgColumn[]
  /** Rows with manifests and the like may have megabytes. */
  readonly hasLargeRows: boolean
}

/** Settings of one deployment: where a scrub is, when garbage was collected. */
const OWN_SETTINGS = sql.raw(`('scrub', 'garbage-collection')`)

/** Every table of the schema, by name. */
export const TABLES: readonly TransferTable[] = Object.values(schema)
  .filter((value) => is(value, PgTable))
  .map((table) => describe(table as PgTable))
  .sort((a, b) => (a.name < b.name ? -1 : 1))

function describe(table: PgTable): TransferTable {
  const { name, columns, primaryKeys } = getTableConfig(table)
  return {
    name,
    table,
    key: primaryKeys[0]?.columns ?? columns.filter(({ primary }) => primary),
    serial: columns.filter(({ columnType }) => columnType.includes('Serial')),
    hasLargeRows: columns.some(({ dataType, name: column }) => dataType === 'json' || column === 'readme'),
  }
}

/** How many rows are in memory at once. */
const ROWS = 1000
const LARGE_ROWS = 8

/** Every row of a table as a line of JSON, in the order of its primary key. Inside a transaction, whose snapshot it tells. */
export async function* readLines(tx: Database, { name, table, key, hasLargeRows }: TransferTable): AsyncGenerator<string> {
  // The same order whatever the collation of the database is.
  const order = sql.join(key.map((column) => (column.dataType === 'string' && column.columnType === 'PgText' ? sql`${column} collate "C"` : sql`${column}`)), sql`, `)
  await tx.execute(sql`declare transfer cursor for select row_to_json(${table})::text as line from ${table} where ${exported(tx, name)} order by ${order}`)
  const count = sql.raw(String(hasLargeRows ? LARGE_ROWS : ROWS))
  for (;;) {
    const rows = rowsOf(await tx.execute(sql`fetch ${count} from transfer`)) as { line: string }[]
    if (rows.length === 0) break
    for (const { line } of rows) yield line
  }
  await tx.execute(sql`close transfer`)
}

/** What belongs to the registry, rather than to what becomes garbage or to the deployment. */
function exported(tx: Database, name: string): SQL {
  if (name === 'blobs') return isReachable(tx)
  if (name === 'settings') return sql`${schema.settings.key} not in ${OWN_SETTINGS}`
  return sql`true`
}

/** Inserts lines of `readLines`. */
export async function writeLines(tx: Database, { table }: TransferTable, lines: readonly string[]): Promise<void> {
  if (lines.length > 0) await tx.execute(sql`insert into ${table} select * from json_populate_recordset(null::${table}, (${`[${lines.join(',')}]`}::text)::json)`)
}

export async function countRows(tx: Database, { table }: TransferTable): Promise<number> {
  const [row] = await tx.select({ count: sql`count(*)`.mapWith(Number) }).from(table)
  return row!.count
}

/** Both drivers answer a statement with its rows, postgres.js as an array, which drizzle's shared type does not say. */
export function rowsOf(result: unknown): Record<string, unknown>[] {
  return (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as Record<string, unknown>[]
}
