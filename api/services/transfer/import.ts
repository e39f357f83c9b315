import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { and, eq, getTableName, isNotNull, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { jobs, settings, users } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { blobKey } from '../../ports/blob-store.ts'
import { isJobKind } from '../../ports/job-queue.ts'
import { inChunks } from '../garbage/in-chunks.ts'
import { PACKAGES } from '../packages.ts'
import { checkBlob } from '../scrub/check-blob.ts'
import { inTransaction } from '../transaction.ts'
import { readLinesFile } from './files.ts'
import { BlobLine, STAGED_FILE, StagedLine, tableFile, TransferError, type ExportManifest } from './format.ts'
import { forEachOf, persistently, type TransferProgress } from './copies.ts'
import { readExport } from './read-manifest.ts'
import { countRows, rowsOf, TABLES, writeLines, type TransferTable } from './tables.ts'

type Scope = Pick<Dependencies, 'db' | 'blobs' | 'queue'>

export interface ImportRequest {
  readonly folder: string
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined
}

/**
 * Makes an empty registry the one that was exported. Blobs come first, each checked; then all rows in one transaction, so that
 * there is all or nothing, and an import that was killed can be begun again. It leaves no line in the audit: the audit is
 * the exported one. For whoever operates the registry. Throws TransferError.
 */
export async function importRegistry({ ctx, input: { folder, onProgress } }: { ctx: Scope; input: ImportRequest }): Promise<ExportManifest> {
  const manifest = await readExport(folder)
  await assertEmpty(ctx.db)
  await importBlobs({ ctx, folder, onProgress })
  for await (const line of readLinesFile(folder, STAGED_FILE)) {
    const { key, ...content } = StagedLine.parse(JSON.parse(line))
    await copy(ctx, folder, key, content)
  }
  await inTransaction(ctx, async (tx) => {
    // Whoever starts a server on this database now waits for its users, and then finds them.
    await tx.execute(sql`lock table ${users} in share row exclusive mode`)
    await assertEmpty(tx)
    await importTables(tx, folder, manifest)
    await continueWork(ctx, tx)
  })
  return manifest
}

/** A server that was started has made an administrator: this one was not. */
async function assertEmpty(db: Database): Promise<void> {
  for (const table of TABLES) {
    if (table.table === settings) continue
    const count = await countRows(db, table)
    if (count > 0) throw new TransferError(`This registry is not empty: its table ${table.name} has ${count} row${count === 1 ? '' : 's'}. Import into a database and a store that no server was started on.`)
  }
}

async function importBlobs({ ctx, folder, onProgress }: { ctx: Scope; folder: string; onProgress: ImportRequest['onProgress'] }): Promise<void> {
  const total = { count: 0, bytes: 0 }
  await forEachOf(readLinesFile(folder, tableFile('blobs')), async (line) => {
    const blob = BlobLine.parse(JSON.parse(line))
    // An import that was killed has left some.
    if ((await checkBlob(ctx.blobs, blob, () => {})) !== null) await copy(ctx, folder, blobKey(blob.sha256), blob)
    total.count++
    total.bytes += blob.size
    onProgress?.({ phase: 'blobs', ...total })
  })
}

async function copy(ctx: Scope, folder: string, key: string, content: { size: number; sha256: string }): Promise<void> {
  await persistently(() => ctx.blobs.write(key, content, createReadStream(join(folder, key), { highWaterMark: 1024 * 1024 }))).catch((error: NodeJS.ErrnoException) => {
    throw new TransferError(error.code === 'ENOENT' ? `The export in ${folder} lacks ${key}.` : `${key} of the export in ${folder} cannot be imported: ${error.message}`)
  })
}

const CHUNK = 500
const LARGE_CHUNK = 8

async function importTables(tx: Database, folder: string, { contents }: ExportManifest): Promise<void> {
  const restore = await deferForeignKeys(tx)
  // The process that imports may have made a key for the URLs of its store.
  await tx.delete(settings)
  for (const table of TABLES) {
    for await (const lines of inChunks(readLinesFile(folder, tableFile(table.name)), table.hasLargeRows ? LARGE_CHUNK : CHUNK)) await writeLines(tx, table, lines)
    const wanted = contents.find(({ file }) => file === tableFile(table.name))!.lines
    const count = await countRows(tx, table)
    if (count !== wanted) throw new TransferError(`The table ${table.name} has ${count} rows after the import, not ${wanted}.`)
    await continueSequences(tx, table)
  }
  await restore()
}

/** Tables come in the order of their names, and versions refer to one another: references are checked when all rows are there. */
async function deferForeignKeys(tx: Database): Promise<() => Promise<void>> {
  const found = await tx.execute(sql`select conname as name, conrelid::regclass::text as table from pg_constraint where contype = 'f' and connamespace = current_schema()::regnamespace`)
  const keys = rowsOf(found) as { name: string; table: string }[]
  const alter = async (how: string) => {
    for (const { name, table } of keys) await tx.execute(sql.raw(`alter table ${table} alter constraint "${name}" ${how}`))
  }
  await alter('deferrable initially deferred')
  return async () => {
    await tx.execute(sql`set constraints all immediate`)
    await alter('not deferrable')
  }
}

async function continueSequences(tx: Database, { table, serial }: TransferTable): Promise<void> {
  for (const column of serial) {
    await tx.execute(sql`select setval(pg_get_serial_sequence(${getTableName(table)}, ${column.name}), coalesce(max(${column}), 0) + 1, false) from ${table}`)
  }
}

/** Jobs that were waiting or running wait in the queue again; what was uploaded is handed to verification by its publisher again. */
async function continueWork(ctx: Scope, tx: Database): Promise<void> {
  await tx.update(jobs).set({ state: 'queued', attempt: 0, progress: null, startedAt: null }).where(eq(jobs.state, 'running'))
  const waiting = await tx.select({ id: jobs.id, kind: jobs.kind, queueId: jobs.queueId }).from(jobs).where(and(eq(jobs.state, 'queued'), isNotNull(jobs.queueId)))
  for (const { id, kind, queueId } of waiting) if (isJobKind(kind)) await ctx.queue.enqueue(tx, { kind, jobId: id, queueId: queueId! })
  for (const { versions } of Object.values(PACKAGES)) await tx.update(versions).set({ state: 'draft' }).where(eq(versions.state, 'uploaded'))
}
