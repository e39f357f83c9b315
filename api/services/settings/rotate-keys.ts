import { eq } from 'drizzle-orm'
import { settings } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { addSigningKey } from '../../ports/signing-keys.ts'
import { recordAudit } from '../audit/record.ts'
import { inTransaction } from '../transaction.ts'
import { BLOB_KEY, newBlobKey } from './blob-key.ts'

export interface RotatedKeys {
  /** Ids of the new key of runners' tokens and of those that were forgotten, and when it begins to sign. */
  readonly signing: { readonly added: string; readonly signsFrom: string; readonly forgotten: readonly string[] }
  /** The key of the data folder's URLs; servers take it at their next start. */
  readonly blobUrls: boolean
}

/**
 * For whoever may start the server: new keys. The one that signs runners' tokens waits until every server knows it, and
 * the one before it checks them until no token of its own lives. Null where there is none yet, or one that waits already.
 */
export async function rotateKeys({ ctx }: { ctx: Pick<Dependencies, 'db' | 'clock'> }): Promise<RotatedKeys | null> {
  return inTransaction(ctx, async (tx) => {
    const signing = await addSigningKey(tx, ctx.clock.now())
    if (signing === null) return null
    const replaced = await tx.update(settings).set({ value: newBlobKey() }).where(eq(settings.key, BLOB_KEY)).returning({ key: settings.key })
    const blobUrls = replaced.length > 0
    const nobody = { principal: { kind: 'anonymous' }, requestId: 'rotate-keys' } as const
    await recordAudit({ ctx: nobody, tx, entry: { organizationId: null, action: 'keys.rotate', subject: signing.added, after: { ...signing, blobUrls } } })
    return { signing, blobUrls }
  })
}
