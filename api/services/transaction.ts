import type { Database } from '../../db/database.ts'

/**
 * Runs `work` in one transaction, or in the caller's where there is one already. Inside, only `tx` may be
 * queried: PGlite has a single connection, and a query beside the transaction would wait for it for ever.
 */
export function inTransaction<T>({ db, tx }: { db: Database; tx?: Database | undefined }, work: (tx: Database) => Promise<T>): Promise<T> {
  return tx === undefined ? db.transaction((inner) => work(inner)) : work(tx)
}
