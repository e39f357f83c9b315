import { mkdir } from 'node:fs/promises'
import { setFlagsFromString } from 'node:v8'
import type { PGlite } from '@electric-sql/pglite'
import type { Database } from './database.ts'
import * as schema from './schema.ts'

/** Bytes of WASM memory to begin with; it grows when PostgreSQL asks. */
const INITIAL_MEMORY = 128 * 1024 * 1024

export interface OpenedPglite {
  readonly db: Database
  /** The engine below, for what speaks to it directly (pg-boss, dumps). */
  readonly pglite: PGlite
  close(): Promise<void>
}

/**
 * PostgreSQL in this process, kept in `folder`, or in memory without one.
 * Small buffers and the baseline compiler: docs/decisions/0003.
 */
export async function openPglite(folder?: string, template?: Blob): Promise<OpenedPglite> {
  setFlagsFromString('--liftoff-only')
  // Imported late: the flag must be set before V8 compiles the WASM module.
  const [{ PGlite }, { drizzle }] = await Promise.all([import('@electric-sql/pglite'), import('drizzle-orm/pglite')])
  if (folder !== undefined) await mkdir(folder, { recursive: true })
  const pglite = await PGlite.create({
    dataDir: folder,
    loadDataDir: template,
    initialMemory: INITIAL_MEMORY,
    startParams: [...PGlite.defaultStartParams, '-c', 'shared_buffers=8MB', '-c', 'wal_buffers=1MB'],
  })
  return { db: drizzle(pglite, { schema }), pglite, close: () => pglite.close() }
}
