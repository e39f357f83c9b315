import { sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { blobs } from '../../../db/schema.ts'

const CHUNK = 500

/** Rows for blobs that are about to be stored and referred to in this transaction; until it ends nobody removes them. */
export async function lockBlobs(tx: Database, added: readonly { readonly sha256: string; readonly size: number }[]): Promise<void> {
  const distinct = [...new Map(added.map(({ sha256, size }) => [sha256, { sha256, size }])).values()]
  // In one order, so that two transactions never wait for each other.
  const rows = distinct.sort((a, b) => (a.sha256 < b.sha256 ? -1 : 1))
  for (let i = 0; i < rows.length; i += CHUNK) {
    await tx.insert(blobs).values(rows.slice(i, i + CHUNK)).onConflictDoUpdate({ target: blobs.sha256, set: { size: sql`excluded.size` } })
  }
}
