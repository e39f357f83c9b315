import { and, asc, eq, getTableColumns, isNotNull, sum } from 'drizzle-orm'
import { changedTensors, derivationPatches, derivations, extents, files, jobs, type DerivationReceipt } from '../../../db/schema.ts'
import type { DerivationOptions } from '../../../patch/derivation.ts'
import type { MergeStorage } from '../../../patch/merge-storage.ts'
import type { RequestContext } from '../../context.ts'
import { findJobView, type JobView } from '../jobs/job-view.ts'
import { modelVersionReference } from '../models/find.ts'
import { patchVersionReference } from '../patches/find.ts'
import { findDerivationState } from './find-visible.ts'

export interface MergedView {
  id: string
  state: 'queued' | 'ready' | 'failed'
  rules: string[]
  options: DerivationOptions
  dtype: string
  target: { reference: string; digest: string }
  patches: { reference: string; digest: string; weight: number; base: string | null }[]
  /** Empty until the merge has run. */
  files: { path: string; size: number; etag: string; changed: boolean }[]
  receipt: DerivationReceipt | null
  storage: MergeStorage
  storageReason: string
  /** Of blobs that are there for it alone: new headers, and changed tensors where they are kept. */
  storedBytes: number
  job: JobView | null
  manifest: string
  page: string
  createdAt: string
  readyAt: string | null
}

/** Without the manifest, which is most of a row. */
const { manifest: _, ...columns } = getTableColumns(derivations)

/** A merged model, ready or on its way, for whoever may see every input of it. */
export async function describeDerivation({ ctx, input }: { ctx: RequestContext; input: { id: string } }): Promise<MergedView> {
  await findDerivationState({ ctx, id: input.id })
  const [found] = await ctx.db.select(columns).from(derivations).where(eq(derivations.id, input.id))
  const row = found!
  const [patches, merged, [kept], untouched, target, job] = await Promise.all([
    describePatches(ctx, row),
    // A changed file begins with its new header.
    ctx.db
      .select({ path: files.path, size: files.size, etag: files.etag, first: extents.length })
      .from(files)
      .leftJoin(extents, and(eq(extents.fileId, files.id), eq(extents.position, 0)))
      .where(eq(files.derivationId, row.id))
      .orderBy(asc(files.path)),
    ctx.db.select({ bytes: sum(changedTensors.length).mapWith(Number) }).from(changedTensors).where(and(eq(changedTensors.derivationId, row.id), isNotNull(changedTensors.blob))),
    ctx.db.select({ path: files.path, etag: files.etag }).from(files).where(eq(files.modelVersionId, row.targetVersionId)),
    modelVersionReference(ctx.db, row.targetVersionId),
    row.jobId === null ? null : findJobView(ctx.db, eq(jobs.id, row.jobId)),
  ])
  const etags = new Map(untouched.map((file) => [file.path, file.etag]))
  const headerBytes = merged.reduce((total, { path, etag, first }) => total + (etags.get(path) === etag ? 0 : first!), 0)
  return {
    id: row.id,
    state: row.state,
    rules: [...row.recipe.rules],
    options: row.recipe.options ?? {},
    dtype: row.recipe.dtype,
    target: { reference: target!, digest: row.recipe.target },
    patches,
    files: merged.map(({ path, size, etag }) => ({ path, size, etag, changed: etags.get(path) !== etag })),
    receipt: row.receipt,
    storage: row.storage,
    storageReason: row.storageReason,
    storedBytes: headerBytes + (kept?.bytes ?? 0),
    job,
    manifest: `${ctx.publicUrl}/v1/derivations/${row.id}/manifest`,
    page: `${ctx.publicUrl}/derivations/${row.id}`,
    createdAt: row.createdAt.toISOString(),
    readyAt: row.readyAt?.toISOString() ?? null,
  }
}

async function describePatches({ db }: RequestContext, { id, recipe }: Pick<typeof derivations.$inferSelect, 'id' | 'recipe'>): Promise<MergedView['patches']> {
  const parts = await db.select().from(derivationPatches).where(eq(derivationPatches.derivationId, id)).orderBy(asc(derivationPatches.position))
  return Promise.all(parts.map(async ({ patchVersionId, weight, position }) => {
    const { digest, base } = recipe.patches[position]!
    return { reference: (await patchVersionReference(db, patchVersionId))!, digest, weight, base: base ?? null }
  }))
}
