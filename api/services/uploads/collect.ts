import { eq, inArray } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { datasetVersions, modelVersions, patchVersions, uploadFiles } from '../../../db/schema.ts'
import { inChunks } from '../garbage/in-chunks.ts'
import type { Collection, Removed } from '../garbage/removed.ts'
import type { PackageKind } from '../packages.ts'
import { inTransaction } from '../transaction.ts'
import { lockVersion, type PublishState } from './subject.ts'

/** Versions in these states still need what was staged for them; a file of another is never needed again. */
const OPEN: readonly PublishState[] = ['draft', 'uploaded', 'verifying']

const CHUNK = 500
const KEY = /^uploads\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/

interface Owner { kind: PackageKind; versionId: string; state: PublishState }

/** Removes what was staged for versions that take no files any more, and for drafts that nobody added to since `draftsBefore`. */
export async function collectUploads({ ctx, before, draftsBefore, dryRun }: Collection & { readonly draftsBefore: Date }): Promise<Removed> {
  const total = { objects: 0, bytes: 0 }
  for await (const listed of inChunks(ctx.blobs.list('uploads'), CHUNK)) {
    const old = listed.filter(({ modifiedAt }) => modifiedAt < before)
    const owners = await findOwners(ctx.db, old.flatMap(({ key }) => KEY.exec(key)?.[1] ?? []))
    for (const { key, size, modifiedAt } of old) {
      const owner = owners.get(KEY.exec(key)?.[1] ?? '')
      const isDead = owner === undefined || !OPEN.includes(owner.state)
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
function discardOfDraft(ctx: Collection['ctx'], key: string, owner: Owner): Promise<boolean> {
  return inTransaction(ctx, async (tx) => {
    if ((await lockVersion(tx, owner)).state !== 'draft') return false
    await ctx.blobs.discard(key)
    return true
  })
}

async function findOwners(db: Database, ids: readonly string[]): Promise<Map<string, Owner>> {
  if (ids.length === 0) return new Map()
  const rows = await db
    .select({
      id: uploadFiles.id,
      model: { id: modelVersions.id, state: modelVersions.state },
      patch: { id: patchVersions.id, state: patchVersions.state },
      dataset: { id: datasetVersions.id, state: datasetVersions.state },
    })
    .from(uploadFiles)
    .leftJoin(modelVersions, eq(modelVersions.id, uploadFiles.modelVersionId))
    .leftJoin(patchVersions, eq(patchVersions.id, uploadFiles.patchVersionId))
    .leftJoin(datasetVersions, eq(datasetVersions.id, uploadFiles.datasetVersionId))
    .where(inArray(uploadFiles.id, [...ids]))
  return new Map(rows.map(({ id, ...owners }) => {
    const [kind, version] = (Object.entries(owners) as [PackageKind, { id: string; state: PublishState } | null][]).find(([, found]) => found !== null)!
    return [id, { kind, versionId: version!.id, state: version!.state }]
  }))
}
