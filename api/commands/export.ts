import type { Command } from 'commander'
import type { ServerConfig } from '../config.ts'
import { connectBlobs } from '../connect-blobs.ts'
import { withDatabase } from '../open-registry.ts'
import { formatBytes } from '../pages/format.ts'
import { systemClock } from '../ports/clock.ts'
import { exportRegistry, type ExportRequest } from '../services/transfer/export.ts'
import type { ExportManifest } from '../services/transfer/format.ts'
import type { TransferProgress } from '../services/transfer/copies.ts'
import { addOperatorCommand, progressLine, readOperatorConfig, UNUSED_URL, type OperatorOptions } from './operator.ts'

export function addExport(program: Command): void {
  addOperatorCommand(program, 'export <folder>', 'writes the whole registry, tables and blobs, into a new folder')
    .addHelpText('after', `
The folder holds secrets, and is made for you alone: hashes of tokens, the keys that sign, internal models. Interrupted, the same
command goes on. With DATABASE_URL the server may run; the embedded one must be stopped.

Example:
  portllm-server export --data ./data ./registry`)
    .action(runExport)
}

async function runExport(folder: string, { json, ...options }: OperatorOptions): Promise<void> {
  const { line, onProgress } = transferProgress()
  const manifest = await exportFrom(readOperatorConfig(options), { folder, onProgress }).finally(line.end)
  console.log(json ? JSON.stringify(summaryOf(manifest)) : `Exported ${describeExport(manifest)} to ${folder}.`)
}

/** Exports the registry of a configuration. */
export function exportFrom(config: ServerConfig, input: ExportRequest): Promise<ExportManifest> {
  return withDatabase(config, async ({ db }) => {
    const { blobs } = await connectBlobs({ config, db, publicUrl: UNUSED_URL })
    return exportRegistry({ ctx: { db, blobs, clock: systemClock }, input })
  })
}

export function transferProgress() {
  let at: TransferProgress | undefined
  const line = progressLine(() => `${at!.count} blobs, ${formatBytes(at!.bytes)}`)
  return { line, onProgress: (now: TransferProgress) => { at = now; line.tell() } }
}

export function summaryOf({ digest, schema, contents, blobs, staged }: ExportManifest) {
  return { digest, schema, rows: contents.reduce((sum, { lines }) => sum + lines, 0), blobs, staged }
}

export function describeExport(manifest: ExportManifest): string {
  const { digest, rows, blobs } = summaryOf(manifest)
  return `${rows} rows and ${blobs.count} blobs (${formatBytes(blobs.bytes)}), digest ${digest.slice(0, 12)}`
}
