import { createHash } from 'node:crypto'
import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { blobs, derivations, extents, files, type DerivationReceipt } from '../../../db/schema.ts'
import { layoutMerge, mergedManifest, resolvePieces, type MergedLayout } from '../../../patch/layout.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import type { Attempt } from '../../ports/job-queue.ts'
import { recordAudit } from '../audit/record.ts'
import type { JobRow } from '../jobs/job-view.ts'
import { outputKey } from '../runner/merge-spec.ts'
import { planMerge } from './plan-merge.ts'
import { readFileMetadata } from './read-file-metadata.ts'

/** What a runner says of a merge: one entry for every changed tensor. */
export interface MergeResult {
  readonly engine: { readonly name: string; readonly version: string; readonly path: string }
  readonly tensors: readonly { readonly name: string; readonly digest: string; readonly length: number; readonly patchNorm: number; readonly realisedNorm: number }[]
  readonly seconds: number
}

interface Header { readonly path: string; readonly sha256: string; readonly bytes: Uint8Array }

export interface PreparedMerge {
  readonly layout: MergedLayout
  readonly headers: readonly Header[]
  readonly outputs: readonly { readonly name: string; readonly sha256: string; readonly size: number; readonly key: string }[]
  readonly result: MergeResult
}

const CHUNK = 500

/**
 * Everything about a finished merge that needs no transaction: the layout is made anew from the recipe, and every
 * staged tensor is hashed, since a digest that a runner only claims must never name a blob.
 */
export async function prepareMerge({ ctx, attempt, result }: { ctx: RequestContext; attempt: Attempt; result: MergeResult }): Promise<PreparedMerge> {
  const derivationId = await derivationOf(ctx.db, attempt)
  const plan = await planMerge({ db: ctx.db, derivationId })
  const reported = new Map(result.tensors.map((tensor) => [tensor.name, tensor]))
  if (reported.size !== plan.changed.length || result.tensors.length !== plan.changed.length) {
    throw new ApiError('invalid_request', `The merge changes ${plan.changed.length} tensors, the result names ${result.tensors.length}.`)
  }
  const outputs: PreparedMerge['outputs'][number][] = []
  for (const [index, { name, source: { length } }] of plan.changed.entries()) {
    const key = outputKey(attempt, index)
    const sha256 = await hashStaged(ctx, key, length)
    const claimed = reported.get(name)?.digest
    if (claimed !== `sha256:${sha256}`) throw new ApiError('digest_mismatch', `The stored bytes of ${name} have the SHA-256 ${sha256}; the result says ${claimed ?? 'nothing'}. Run the job again.`)
    outputs.push({ name, sha256, size: length, key })
  }
  const changed = new Set(plan.changed.map(({ name }) => name))
  const touched = new Set(plan.changed.map(({ source }) => source.file))
  const metadata = await readFileMetadata({ blobs: ctx.blobs, target: plan.target, extents: plan.targetExtents, paths: touched })
  const layout = await layoutMerge({ derivationId, target: plan.target, extents: plan.targetExtents, metadata, changed })
  const headers = layout.files.flatMap((file) => (file.changed ? [{ path: file.path, bytes: file.header, sha256: createHash('sha256').update(file.header).digest('hex') }] : []))
  for (const { sha256, bytes } of headers) await ctx.blobs.putBlob(sha256, bytes)
  return { layout, headers, outputs, result }
}

async function derivationOf(db: Database, attempt: Attempt): Promise<string> {
  const [row] = await db.select({ id: derivations.id }).from(derivations).where(eq(derivations.jobId, attempt.jobId))
  if (row === undefined) throw new ApiError('stale_attempt', 'The derivation has another job now.')
  return row.id
}

async function hashStaged(ctx: RequestContext, key: string, length: number): Promise<string> {
  const hash = createHash('sha256')
  if (length > 0) for await (const chunk of await ctx.blobs.read(key, { offset: 0, length })) hash.update(chunk)
  return hash.digest('hex')
}

/** Makes a prepared merge visible: its blobs, files and extents, its manifest and receipt. */
export async function finishMerge({ ctx, tx, job, prepared }: { ctx: RequestContext; tx: Database; job: JobRow; prepared: PreparedMerge }): Promise<void> {
  const { layout, headers, outputs, result } = prepared
  for (const { key, sha256, size } of outputs) await ctx.blobs.promote(key, { sha256, size })
  const added = [...outputs.map(({ sha256, size }) => ({ sha256, size })), ...headers.map(({ sha256, bytes }) => ({ sha256, size: bytes.length }))]
  for (let i = 0; i < added.length; i += CHUNK) await tx.insert(blobs).values(added.slice(i, i + CHUNK)).onConflictDoNothing()
  await storeFiles(tx, job.derivationId!, prepared)
  const manifest = mergedManifest(layout, new Map(outputs.map(({ name, sha256 }) => [name, `sha256:${sha256}`])))
  const storedBytes = added.reduce((sum, { size }) => sum + size, 0)
  const receipt: DerivationReceipt = {
    engine: { ...result.engine },
    tensors: result.tensors.map(({ name, digest, patchNorm, realisedNorm }) => ({ name, digest, patchNorm, realisedNorm })),
    storedBytes,
    seconds: result.seconds,
  }
  await tx.update(derivations).set({ state: 'ready', manifest, receipt, readyAt: ctx.clock.now() }).where(eq(derivations.id, job.derivationId!))
  await recordAudit({ ctx, tx, entry: { organizationId: job.organizationId, action: 'derivation.merge', subject: job.derivationId!, after: { state: 'ready', storedBytes } } })
}

async function storeFiles(tx: Database, derivationId: string, { layout, headers, outputs }: PreparedMerge): Promise<void> {
  const changed = new Map(outputs.map(({ name, sha256 }) => [name, { blob: sha256 }]))
  const headerOf = new Map(headers.map(({ path, sha256 }) => [path, { blob: sha256 }]))
  const inserted = await tx
    .insert(files)
    .values(layout.files.map(({ path, size, etag }) => ({ derivationId, path, size, etag })))
    .returning({ id: files.id, path: files.path })
  const idOf = new Map(inserted.map(({ id, path }) => [path, id]))
  const rows = layout.files.flatMap((file) => {
    const list = file.changed ? resolvePieces(file.pieces, { header: headerOf.get(file.path)!, changed }) : file.extents
    return list.map((extent, position) => ({ fileId: idOf.get(file.path)!, position, ...extent }))
  })
  for (let i = 0; i < rows.length; i += CHUNK) await tx.insert(extents).values(rows.slice(i, i + CHUNK))
}
