import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { settings } from '../../../db/schema.ts'

const KEY = 'blob-url-key'

/** The 32 secret bytes that sign the URLs of the local blob store; made at the first start. */
export async function readBlobKey(db: Database): Promise<Uint8Array> {
  const fresh = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString('base64')
  await db.insert(settings).values({ key: KEY, value: fresh }).onConflictDoNothing()
  const [row] = await db.select().from(settings).where(eq(settings.key, KEY))
  return Buffer.from(row!.value as string, 'base64')
}
