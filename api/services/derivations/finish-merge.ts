import { createHash } from 'node:crypto'
import { and, asc, eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { changedTensors, derivations, extents, files, type DerivationReceipt } from '../../../db/schema.ts'
import type { FileExtent } from '../../../patch/extent.ts'
import { layoutMerge, mergedManifest, resolvePieces, type MergedLayout } from '../../../patch/layout.ts'
import type { TensorReceipt } from '../../../patch/receipt.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { recordAudit } from '../audit/record.ts'
import { lockBlobs } from '../blobs/lock.ts'
import { promoteStaged } from '../blobs/promote.ts'
import { releaseEvaluations } from '../evaluations/release.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { outputKey, storesTensors } from '../runner/merge-spec.ts'
import { planMerge } from './plan-merge.ts'
import { readFileMetadata } from './read-file-metadata.ts'
import { readUntiedTexts } from './read-untied-texts.ts'
import { ASKED_FOR } from './storage.ts'

/** What a runner says of a merge: one entry for every changed tensor. */
export interface MergeResult {
  readonly engine: { readonly name: string; readonly version: string; readonly path: string }
  readonly tensors: readonly (TensorReceipt & { readonly length: number })[]
  readonly seconds: number
}

interface Header { readonly path: string; readonly sha256: string; readonly bytes: Uint8Array }

interface Output {
  readonly name: string
  /** As the runner claims it; the bytes that `stored` names have it. */
  readonly digest: string
  readonly size: number
  /** Where it is kept: its bytes as they were hashed here, and where they are staged. */
  readonly stored: { readonly sha256: string; readonly key: string } | null
}

export interface PreparedMerge {
  /** In the order of the plan. */
  readonly outputs: readonly Output[]
  /** Null where the merged model is ready, and only its tensors are to be kept. */
  readonly made: { readonly layout: MergedLayout; readonly headers: readonly Header[]; readonly result: MergeResult } | null
}

const CHUNK = 500

/**
 * Everything about a finished merge that needs no transaction: the layout is made anew from the recipe, and every
 * staged tensor is hashed, since a digest that a runner only claims must never name a blob. Throws `invalid_request`
 * and `digest_mismatch`.
 */
export async function prepareMerge({ ctx, attempt, result }: { ctx: RequestContext; attempt: Attempt; result: MergeResult }): Promise<PreparedMerge> {
  const derivation = await derivationOf(ctx.db, attempt)
  const derivationId = derivation.id
  const plan = await planMerge({ db: ctx.db, derivationId })
  const reported = new Map(result.tensors.map((tensor) => [tensor.name, tensor]))
  if (reported.size !== plan.changed.length || result.tensors.length !== plan.changed.length) {
    throw new ApiError('invalid_request', `The merge changes ${plan.changed.length} tensors, the result names ${result.tensors.length}.`)
  }
  const outputs: Output[] = []
  for (const [index, { name, source }] of plan.changed.entries()) {
    const claimed = reported.get(name)
    if (claimed?.length !== source.length) throw new ApiError('invalid_request', `The changed tensor ${name} has ${source.length} bytes; the result says ${claimed?.length ?? 'nothing'}.`)
    const stored = storesTensors(derivation) ? await hashStaged(ctx, outputKey(attempt, index), source.length) : null
    if (stored !== null && claimed.digest !== `sha256:${stored.sha256}`) {
      throw new ApiError('digest_mismatch', `The stored bytes of ${name} have the SHA-256 ${stored.sha256}; the result says ${claimed.digest}. Run the job again.`)
    }
    outputs.push({ name, digest: claimed.digest, size: source.length, stored })
  }
  if (derivation.state === 'ready') {
    await assertSame(ctx.db, derivationId, outputs)
    return { outputs, made: null }
  }
  const changed = new Set(plan.changed.map(({ name }) => name))
  const touched = new Set(plan.changed.map(({ source }) => source.file))
  const stored = { blobs: ctx.blobs, target: plan.target, extents: plan.targetExtents }
  const metadata = await readFileMetadata({ ...stored, paths: touched })
  const untied = plan.untied && (await readUntiedTexts({ ...stored, untied: plan.untied }))
  const layout = await layoutMerge({ derivationId, target: plan.target, extents: plan.targetExtents, metadata, changed, untied })
  const headers = layout.files.flatMap((file) => (file.changed ? [{ path: file.path, bytes: file.header, sha256: createHash('sha256').update(file.header).digest('hex') }] : []))
  return { outputs, made: { layout, headers, result } }
}

/** The bytes must be those that the manifest and receipt have named since the first merge. */
async function assertSame(db: Database, derivationId: string, outputs: readonly Output[]): Promise<void> {
  const rows = await db.select({ name: changedTensors.name, digest: changedTensors.digest }).from(changedTensors).where(eq(changedTensors.derivationId, derivationId)).orderBy(asc(changedTensors.position))
  for (const [index, { name, digest }] of outputs.entries()) {
    if (rows[index]?.name !== name || rows[index].digest !== digest) {
      throw new ApiError('digest_mismatch', `${name} was merged to ${digest} now, but manifest and receipt say ${rows[index]?.digest}. One of the two runners computes wrongly; nothing was stored.`)
    }
  }
}

async function derivationOf(db: Database, attempt: Attempt) {
  const [row] = await db.select({ id: derivations.id, state: derivations.state, storage: derivations.storage }).from(derivations).where(eq(derivations.jobId, attempt.jobId))
  if (row === undefined) throw new ApiError('stale_attempt', 'The derivation has another job now.')
  return row
}

async function hashStaged(ctx: RequestContext, key: string, length: number): Promise<{ sha256: string; key: string }> {
  const hash = createHash('sha256')
  if (length > 0) for await (const chunk of await ctx.blobs.read(key, { offset: 0, length }, { reuse: true })) hash.update(chunk)
  return { sha256: hash.digest('hex'), key }
}

/**
 * Makes a prepared merge visible: its blobs, files and extents, its manifest and receipt; or the blobs alone of one that
 * was computed until now. Says how many evaluations have waited for it.
 */
export async function finishMerge({ ctx, tx, job, prepared: { outputs, made } }: { ctx: RequestContext; tx: Database; job: JobRow; prepared: PreparedMerge }): Promise<{ released: number }> {
  const derivationId = job.derivationId!
  const blobs = outputs.flatMap(({ size, stored }) => (stored === null ? [] : [{ ...stored, size }]))
  const headers = (made?.headers ?? []).map(({ sha256, bytes }) => ({ sha256, size: bytes.length }))
  await lockBlobs(tx, [...blobs, ...headers])
  await promoteStaged(ctx.blobs, blobs)
  for (const { sha256, bytes } of made?.headers ?? []) await ctx.blobs.putBlob(sha256, bytes)
  if (made === null) {
    await keepTensors({ ctx, tx, job, outputs })
    return { released: 0 }
  }
  const { layout, result } = made
  await storeFiles(tx, derivationId, outputs, made)
  const manifest = mergedManifest(layout, new Map(outputs.map(({ name, digest }) => [name, digest])))
  const receipt: DerivationReceipt = {
    engine: { ...result.engine },
    tensors: result.tensors.map(({ length: _, ...tensor }) => tensor),
    seconds: result.seconds,
  }
  await tx.update(derivations).set({ state: 'ready', manifest, receipt, readyAt: ctx.clock.now() }).where(eq(derivations.id, derivationId))
  const released = await releaseEvaluations({ ctx, tx, derivationId })
  const storedBytes = [...blobs, ...headers].reduce((sum, { size }) => sum + size, 0)
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: 'derivation.merge', subject: derivationId, after: { state: 'ready', storedBytes } } })
  return { released }
}

/** The tensors of a merged model that is ready become blobs. */
async function keepTensors({ ctx, tx, job, outputs }: { ctx: RequestContext; tx: Database; job: JobRow; outputs: readonly Output[] }): Promise<void> {
  const derivationId = job.derivationId!
  for (const [position, { stored }] of outputs.entries()) {
    await tx.update(changedTensors).set({ blob: stored!.sha256 }).where(and(eq(changedTensors.derivationId, derivationId), eq(changedTensors.position, position)))
  }
  await tx.update(derivations).set({ storage: 'materialised', storageReason: ASKED_FOR }).where(eq(derivations.id, derivationId))
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: 'derivation.materialise', subject: derivationId, before: { storage: 'computed' }, after: { storage: 'materialised' } } })
}

async function storeFiles(tx: Database, derivationId: string, outputs: readonly Output[], { layout, headers }: NonNullable<PreparedMerge['made']>): Promise<void> {
  const tensorIds: string[] = []
  for (let i = 0; i < outputs.length; i += CHUNK) {
    const chunk = outputs.slice(i, i + CHUNK).map(({ name, digest, size, stored }, at) => ({ derivationId, position: i + at, name, digest, length: size, blob: stored?.sha256 ?? null }))
    for (const { id, position } of await tx.insert(changedTensors).values(chunk).returning({ id: changedTensors.id, position: changedTensors.position })) tensorIds[position] = id
  }
  const changed = new Map(outputs.map(({ name }, position) => [name, position]))
  const headerOf = new Map(headers.map(({ path, sha256 }) => [path, sha256]))
  const inserted = await tx
    .insert(files)
    .values(layout.files.map(({ path, size, etag }) => ({ derivationId, path, size, etag })))
    .returning({ id: files.id, path: files.path })
  const idOf = new Map(inserted.map(({ id, path }) => [path, id]))
  const rows = layout.files.flatMap((file) => {
    const list: readonly FileExtent[] = file.changed ? resolvePieces(file.pieces, { header: headerOf.get(file.path)!, changed }) : file.extents
    return list.map((extent, position) => {
      const source = 'tensor' in extent ? { changedTensorId: tensorIds[extent.tensor]! } : { blob: extent.blob }
      return { fileId: idOf.get(file.path)!, position, offset: extent.offset, length: extent.length, ...source }
    })
  })
  for (let i = 0; i < rows.length; i += CHUNK) await tx.insert(extents).values(rows.slice(i, i + CHUNK))
}
