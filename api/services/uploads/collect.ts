import { eq, inArray, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { modelVersions, patchVersions, uploadFiles } from '../../../db/schema.ts'
import { inChunks } from '../garbage/in-chunks.ts'
import type { Collection, Removed } from '../garbage/removed.ts'
import { inTransaction } from '../transaction.ts'
import type { PublishState } from './subject.ts'

/** Versions in these states still need what was staged for them; a file of another is never needed again. */
const OPEN: readonly PublishState[] = ['draft', 'uploaded', 'verifying']

const CHUNK = 500
const KEY = /^uploads\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/

interface Owner { modelVersionId: string | null; patchVersionId: string | null; state: PublishState | null }

/** Removes what was staged for versions that take no files any more, and for drafts that nobody added to since `draftsBefore`. */
export async function collectUploads({ ctx, before, draftsBefore, dryRun }: Collection & { readonly draftsBefore: Date }): Promise<Removed> {
  const total = { objects: 0, bytes: 0 }
  for await (const listed of inChunks(ctx.blobs.list('uploads'), CHUNK)) {
    const old = listed.filter(({ modifiedAt }) => modifiedAt < before)
    const owners = await findOwners(ctx.db, old.flatMap(({ key }) => KEY.exec(key)?.[1] ?? []))
    for (const { key, size, modifiedAt } of old) {
      const owner = owners.get(KEY.exec(key)?.[1] ?? '')
      const isDead = owner === undefined || !OPEN.includes(owner.state!)
      const isAbandoned = owner?.state === 'draft' && modifiedAt < draftsBefore
      if (!isDead && !isAbandoned) continue
      if (!dryRun) {
        if (isDead) await ctx.blobs.discard(key)
        else if (!(await discardOfDraft(ctx, key, owner))) continue
      }
      total.objects++
      total.bytes += size
    }
  }
  return total
}

/** Under the lock of closeDraft: what is being verified keeps its bytes. */
function discardOfDraft(ctx: Collection['ctx'], key: string, { modelVersionId, patchVersionId }: Owner): Promise<boolean> {
  const table = modelVersionId === null ? patchVersions : modelVersions
  return inTransaction(ctx, async (tx) => {
    const [version] = await tx.select({ state: table.state }).from(table).where(eq(table.id, (modelVersionId ?? patchVersionId)!)).for('update')
    if (version?.state !== 'draft') return false
    await ctx.blobs.discard(key)
    return true
  })
}

async function findOwners(db: Database, ids: readonly string[]): Promise<Map<string, Owner>> {
  if (ids.length === 0) return new Map()
  const rows = await db
    .select({ id: uploadFiles.id, modelVersionId: uploadFiles.modelVersionId, patchVersionId: uploadFiles.patchVersionId, state: sql<PublishState>`coalesce(${modelVersions.state}, ${patchVersions.state})` })
    .from(uploadFiles)
    .leftJoin(modelVersions, eq(modelVersions.id, uploadFiles.modelVersionId))
    .leftJoin(patchVersions, eq(patchVersions.id, uploadFiles.patchVersionId))
    .where(inArray(uploadFiles.id, [...ids]))
  return new Map(rows.map(({ id, ...owner }) => [id, owner]))
}
