import { spawn } from 'node:child_process'
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import type { PGlite } from '@electric-sql/pglite'
import type { Database } from './database.ts'
import * as schema from './schema.ts'

/** Bytes of WASM memory to begin with; it grows when PostgreSQL asks. */
const INITIAL_MEMORY = 128 * 1024 * 1024

/** What V8's `--liftoff-only` implies: set at run time, that flag itself no longer brings these with it. */
const BASELINE_COMPILER = ['--no-wasm-tier-up', '--no-wasm-dynamic-tiering']

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
export async function openPglite(folder?: string, options: { initialise?: 'here' } = {}): Promise<OpenedPglite> {
  if (folder !== undefined && options.initialise !== 'here') await initialise(folder)
  for (const flag of BASELINE_COMPILER) setFlagsFromString(flag)
  // Imported late: the flags must be set before V8 compiles the WASM module.
  const [{ PGlite }, { drizzle }] = await Promise.all([import('@electric-sql/pglite'), import('drizzle-orm/pglite')])
  const pglite = await PGlite.create({
    dataDir: folder,
    initialMemory: INITIAL_MEMORY,
    startParams: [...PGlite.defaultStartParams, '-c', 'shared_buffers=8MB', '-c', 'wal_buffers=1MB'],
  })
  return { db: drizzle(pglite, { schema }), pglite, close: () => pglite.close() }
}

/**
 * Makes an empty database where there is none: beside its place and by another process, so that one which is
 * killed leaves no half-made database, and so that the half gigabyte which initdb takes is given back.
 */
async function initialise(folder: string): Promise<void> {
  if (await exists(join(folder, 'PG_VERSION'))) return
  const fresh = `${folder}.new`
  await rm(fresh, { recursive: true, force: true })
  await mkdir(dirname(folder), { recursive: true })
  await run(fileURLToPath(new URL('./initialise-pglite.ts', import.meta.url)), fresh)
  await rename(fresh, folder)
}

function run(script: string, folder: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, folder], { stdio: ['ignore', 'ignore', 'pipe'] })
    let errors = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = (errors + text).slice(-2000)))
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`The database could not be made in ${folder}: ${errors.trim() || `exit code ${code}`}`))))
  })
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false)
}
