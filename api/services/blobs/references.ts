import { and, eq, exists, is, notExists, or, sql, type SQL } from 'drizzle-orm'
import { getTableConfig, PgTable, type PgColumn } from 'drizzle-orm/pg-core'
import type { Database } from '../../../db/database.ts'
import * as schema from '../../../db/schema.ts'

const { blobs, uploadFiles } = schema

/** Every column that refers to a blob, as the schema has it: a new one counts by itself. */
export const BLOB_REFERENCES: readonly PgColumn[] = Object.values(schema)
  .filter((value) => is(value, PgTable))
  .flatMap((table) => getTableConfig(table as PgTable).foreignKeys.map((key) => key.reference()))
  .filter(({ foreignTable }) => foreignTable === blobs)
  .map(({ columns }) => columns[0]!)

const one = sql`1`

/** What a draft counts on without sending it. */
function ofHeld(db: Database) {
  return db.select({ one }).from(uploadFiles).where(and(eq(uploadFiles.sha256, blobs.sha256), eq(uploadFiles.held, true)))
}

function ofColumn(db: Database, column: PgColumn) {
  return db.select({ one }).from(column.table).where(eq(column, blobs.sha256))
}

/** The condition on `blobs` for those that something in the database needs. */
export function isReachable(db: Database): SQL {
  return or(...BLOB_REFERENCES.map((column) => exists(ofColumn(db, column))), exists(ofHeld(db)))!
}

/** The condition on `blobs` for the others. */
export function isUnreachable(db: Database): SQL {
  return and(...BLOB_REFERENCES.map((column) => notExists(ofColumn(db, column))), notExists(ofHeld(db)))!
}
