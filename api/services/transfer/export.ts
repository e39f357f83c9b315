import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { and, eq, inArray, sql } from 'drizzle-orm'
import pLimit from 'p-limit'
import type { Database } from '../../../db/database.ts'
import { knownMigrations } from '../../../db/migrate.ts'
import { uploadFiles } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { BlobMissingError, blobKey } from '../../ports/blob-store.ts'
import { VERSION } from '../../version.ts'
import { PACKAGES } from '../packages.ts'
import { stagedKey } from '../uploads/subject.ts'
import { copyChecked, digestFile, readLinesFile, writeLinesFile } from './files.ts'
import { BlobLine, digestOfExport, EXPORT_FORMAT, FILE_MODE, FOLDER_MODE, MANIFEST_FILE, STAGED_FILE, tableFile, TransferError, UNFINISHED_FILE, type ExportManifest, type StagedLine } from './format.ts'
import { forEachOf, persistently, type TransferProgress } from './copies.ts'
import { readLines, TABLES } from './tables.ts'

export interface ExportRequest {
  readonly folder: string
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined
}

/**
 * Writes a whole registry into a folder: its tables as they were at one moment, and every blob that they refer to, checked by
 * its digest. An export that was interrupted goes on with the blobs that it lacks. Whoever stores or publishes meanwhile does
 * so undisturbed. For whoever operates the registry. Throws TransferError.
 */
export async function exportRegistry({ ctx, input: { folder, onProgress } }: { ctx: Pick<Dependencies, 'db' | 'blobs' | 'clock'>; input: ExportRequest }): Promise<ExportManifest> {
  await prepareFolder(folder)
  const { contents, drafted } = await ctx.db.transaction((tx) => exportTables(tx, folder), { isolationLevel: 'repeatable read', accessMode: 'read only' })
  const blobs = await exportBlobs({ ctx, folder, onProgress })
  const staged = await exportStaged({ ctx, folder, drafted })
  contents.push(await writeLinesFile(folder, STAGED_FILE, linesOf(staged)))
  const named = { format: EXPORT_FORMAT, schema: (await knownMigrations()).at(-1)!, contents } as const
  const manifest: ExportManifest = { ...named, version: VERSION, createdAt: ctx.clock.now().toISOString(), blobs, staged: totalOf(staged), digest: digestOfExport(named) }
  await writeFile(join(folder, MANIFEST_FILE), `${JSON.stringify(manifest, null, 2)}\n`, { mode: FILE_MODE, flush: true })
  await rm(join(folder, UNFINISHED_FILE))
  return manifest
}

async function prepareFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: FOLDER_MODE })
  const names = await readdir(folder)
  if (names.includes(MANIFEST_FILE)) throw new TransferError(`There is an export in ${folder} already. Name another folder.`)
  if (names.length > 0 && !names.includes(UNFINISHED_FILE)) throw new TransferError(`${folder} is not empty, and holds no export that was interrupted. Name another folder.`)
  await writeFile(join(folder, UNFINISHED_FILE), 'This export has not ended. Run the same command again.\n', { mode: FILE_MODE })
}

interface DraftedFile { readonly id: string; readonly size: number; readonly sha256: string }

async function exportTables(tx: Database, folder: string): Promise<{ contents: ExportManifest['contents']; drafted: DraftedFile[] }> {
  // Times are written the same whatever the zone of the server is.
  await tx.execute(sql`set local timezone to 'UTC'`)
  const contents: ExportManifest['contents'] = []
  for (const table of TABLES) contents.push(await writeLinesFile(folder, tableFile(table.name), readLines(tx, table)))
  return { contents, drafted: await readDrafted(tx) }
}

/** Files that are staged, or may be, for versions that are not verified yet. */
async function readDrafted(tx: Database): Promise<DraftedFile[]> {
  const drafted: DraftedFile[] = []
  for (const kind of ['dataset', 'model', 'patch'] as const) {
    const { versions } = PACKAGES[kind]
    const ofVersions = tx.select({ id: uploadFiles.id, size: uploadFiles.size, sha256: uploadFiles.sha256 }).from(uploadFiles).innerJoin(versions, eq(versions.id, uploadFiles[`${kind}VersionId`]))
    drafted.push(...(await ofVersions.where(and(eq(uploadFiles.held, false), inArray(versions.state, ['draft', 'uploaded', 'verifying']))).orderBy(uploadFiles.id)))
  }
  return drafted
}

async function exportBlobs({ ctx, folder, onProgress }: { ctx: Pick<Dependencies, 'blobs'>; folder: string; onProgress: ExportRequest['onProgress'] }): Promise<ExportManifest['blobs']> {
  const total = { count: 0, bytes: 0 }
  await forEachOf(readLinesFile(folder, tableFile('blobs')), async (line) => {
    const { sha256, size } = BlobLine.parse(JSON.parse(line))
    const key = blobKey(sha256)
    const path = join(folder, key)
    if ((await digestFile(path))?.sha256 !== sha256) {
      const found = await persistently(async () => copyChecked(path, sha256, await ctx.blobs.read(key, { offset: 0, length: size }).catch(explainMissing)))
      if (found.sha256 !== sha256) throw new TransferError(`The blob ${sha256} is damaged: its bytes have the SHA-256 ${found.sha256}. "portllm-server scrub" tells what depends on it.`)
    }
    total.count++
    total.bytes += size
    onProgress?.({ phase: 'blobs', ...total })
  })
  return total
}

function explainMissing(error: Error): never {
  if (!(error instanceof BlobMissingError)) throw error
  throw new TransferError(`The registry is damaged: ${error.message}. "portllm-server scrub" tells what depends on it.`)
}

/** What of a draft has arrived whole; the rest is sent again. */
async function exportStaged({ ctx, folder, drafted }: { ctx: Pick<Dependencies, 'blobs'>; folder: string; drafted: readonly DraftedFile[] }): Promise<StagedLine[]> {
  const limit = pLimit(4)
  const lines = await Promise.all(drafted.map(({ id, size, sha256 }) => limit(async () => {
    const key = stagedKey(id)
    if ((await ctx.blobs.size(key)) !== size) return null
    const found = await persistently(async () => copyChecked(join(folder, key), sha256, await ctx.blobs.read(key, { offset: 0, length: size })))
    return found.sha256 === sha256 ? { key, size, sha256 } : null
  })))
  return lines.filter((line) => line !== null)
}

function totalOf(staged: readonly StagedLine[]): ExportManifest['staged'] {
  return { count: staged.length, bytes: staged.reduce((sum, { size }) => sum + size, 0) }
}

async function* linesOf(values: readonly object[]): AsyncGenerator<string> {
  for (const value of values) yield JSON.stringify(value)
}
