import { createHash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'
import pLimit from 'p-limit'
import { run } from './run-command.ts'

/** What is younger than this may be in use by a process of another checkout. */
const YOUNG_MS = 3_600_000

export interface Compilation {
  /** A C++ compiler that there is. */
  readonly compiler: string
  readonly flags: readonly string[]
  /** Folders of the headers that the sources include. */
  readonly headers: readonly string[]
  /** Where the object files are kept. */
  readonly folder: string
}

/**
 * The sources' object files, in their order: as many are compiled at once as there are processors, and those not at all
 * of which the folder has one of the same source, headers, flags and compiler. Safe to call from several processes at once.
 *
 * @throws Error with the compiler's words on the first source that it refuses.
 */
export async function compileObjects(sources: readonly string[], { compiler, flags, headers, folder }: Compilation): Promise<string[]> {
  await mkdir(folder, { recursive: true })
  const common = createHash('sha256').update(JSON.stringify([compiler, flags]))
  for (const name of headers) common.update(await contentsOf(name, /\.h$/))
  const limit = pLimit(availableParallelism())
  let failure: Error | undefined
  const objects = await Promise.all(sources.map((source) => limit(async () => {
    const object = join(folder, `${basename(source)}-${common.copy().update(await readFile(source)).digest('hex').slice(0, 12)}.o`)
    if (existsSync(object)) await utimes(object, new Date(), new Date())
    else if (failure === undefined) await makeFile(object, compiler, [...flags, '-c', source]).catch((error: Error) => (failure ??= error))
    return object
  })))
  if (failure !== undefined) throw failure
  return objects
}

/** Runs a compiler or linker that writes one file, which is there whole or not at all. @throws Error with its words. */
export async function makeFile(path: string, compiler: string, args: readonly string[]): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`
  try {
    const result = await run(compiler, [...args, '-o', temporary])
    if (result === 'missing') throw new Error(`there is no compiler ${compiler}`)
    if (result.status !== 0) throw new Error(`${compiler} ended with exit code ${result.status} instead of making ${basename(path)}:\n${result.output.slice(0, 4000)}`)
    await rename(temporary, path)
  } finally {
    await rm(temporary, { force: true })
  }
}

/** A digest of the folder's files that the pattern fits, and of their names. */
export async function contentsOf(folder: string, pattern: RegExp): Promise<Buffer> {
  const hash = createHash('sha256')
  for (const name of (await readdir(folder)).filter((name) => pattern.test(name)).sort()) {
    hash.update(`${name}\0`).update(await readFile(join(folder, name))).update('\0')
  }
  return hash.digest()
}

/** Removes the folder's files that the pattern fits and that nobody has made or used for an hour. */
export async function removeOld(folder: string, pattern: RegExp): Promise<void> {
  for (const name of (await readdir(folder)).filter((name) => pattern.test(name))) {
    const path = join(folder, name)
    const status = await stat(path).catch(() => null)
    if (status?.isFile() && Date.now() - status.mtimeMs > YOUNG_MS) await rm(path, { force: true })
  }
}
