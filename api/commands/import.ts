import type { Command } from 'commander'
import type { ServerConfig } from '../config.ts'
import { connectBlobs } from '../connect-blobs.ts'
import { alone } from '../open-registry.ts'
import { startPgBossQueue } from '../ports/pg-boss-queue.ts'
import type { ExportManifest } from '../services/transfer/format.ts'
import { importRegistry, type ImportRequest } from '../services/transfer/import.ts'
import { describeExport, summaryOf, transferProgress } from './export.ts'
import { addOperatorCommand, readOperatorConfig, UNUSED_URL, type OperatorOptions } from './operator.ts'

export function addImport(program: Command): void {
  addOperatorCommand(program, 'import <folder>', 'makes an empty registry the one that "export" has written into a folder')
    .addHelpText('after', `
The database and the store must be empty: no server was started on them. Every blob is checked, and there is all or nothing; killed,
the same command begins again, without what was copied. Tokens, members and signing keys are those of the exported registry.

Example:
  DATABASE_URL=postgres://… PORTLLM_S3_BUCKET=… portllm-server import ./registry`)
    .action(runImport)
}

async function runImport(folder: string, { json, ...options }: OperatorOptions): Promise<void> {
  const { line, onProgress } = transferProgress()
  const manifest = await importInto(readOperatorConfig(options), { folder, onProgress }).finally(line.end)
  console.log(json ? JSON.stringify(summaryOf(manifest)) : `Imported ${describeExport(manifest)}. Start the server on it.`)
}

/** Imports into the empty registry of a configuration, which is made where there is none. */
export function importInto(config: ServerConfig, input: ImportRequest): Promise<ExportManifest> {
  return alone(config, async (database) => {
    const { db } = database
    const { blobs } = await connectBlobs({ config, db, publicUrl: UNUSED_URL })
    const queue = await startPgBossQueue(database, { supervise: false, migrate: config.migrate !== 'never', onError: (error) => console.error(`The job queue: ${error.message}`) })
    try {
      return await importRegistry({ ctx: { db, blobs, queue }, input })
    } finally {
      await queue.stop()
    }
  })
}
