import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { settings } from '../../../db/schema.ts'

export const BLOB_KEY = 'blob-url-key'

/** The 32 secret bytes that sign the URLs of the local blob store; made at the first start. */
export async function readBlobKey(db: Database): Promise<Uint8Array> {
  await db.insert(settings).values({ key: BLOB_KEY, value: newBlobKey() }).onConflictDoNothing()
  const [row] = await db.select().from(settings).where(eq(settings.key, BLOB_KEY))
  return Buffer.from(row!.value as string, 'base64')
}

export function newBlobKey(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64')
}
