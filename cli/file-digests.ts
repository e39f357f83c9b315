import { createHash, randomUUID } from 'node:crypto'
import { readFile, realpath, rename, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { makeFolder } from '../gpu-runner/make-folder.ts'
import type { ManifestFile } from '../patch/manifest.ts'
import { hashRange } from './hash.ts'
import type { Progress } from './progress.ts'
import type { LocalFile } from './publishable-files.ts'

/** Digests of a folder's files, kept between runs: `path → [stamp, sha256]`. */
type Cache = Record<string, [stamp: string, sha256: string]>

/** A file modified this recently could change again without a change of its time stamp. */
const RACY_MS = 2_000

/** SHA-256 of each file; those that have not changed since an earlier run are not read again. */
export async function digestFiles(folder: string, files: readonly LocalFile[], signal: AbortSignal, progress: Progress): Promise<ManifestFile[]> {
  const cachePath = await cacheFile(folder)
  const cache = await readCache(cachePath)
  const total = files.reduce((sum, { size }) => sum + size, 0)
  let done = 0
  const digests: ManifestFile[] = []
  const fresh: Cache = {}
  for (const { path, absolute, size, stamp, modifiedMs } of files) {
    const known = cache[path]
    let sha256 = known?.[0] === stamp ? known[1] : null
    if (sha256 === null) {
      const started = Date.now()
      sha256 = await hashRange(absolute, 0, size, signal, (count) => progress.update((done += count), total))
      if (started - modifiedMs > RACY_MS) {
        fresh[path] = [stamp, sha256]
        if (size > WORTH_KEEPING_BYTES) await writeCache(cachePath, { ...cache, ...fresh })
      }
    } else {
      fresh[path] = [stamp, sha256]
      progress.update((done += size), total)
    }
    digests.push({ path, size, etag: sha256 })
  }
  await writeCache(cachePath, fresh)
  return digests
}

/** Files from this size on are worth a write of the cache each, so that an interruption does not lose the work. */
const WORTH_KEEPING_BYTES = 64 << 20

async function cacheFile(folder: string): Promise<string> {
  const base = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  const name = createHash('sha256').update(await realpath(folder)).digest('hex')
  return join(base, 'portllm', 'digests', `${name}.json`)
}

async function readCache(path: string): Promise<Cache> {
  try {
    const cache: unknown = JSON.parse(await readFile(path, 'utf8'))
    if (typeof cache !== 'object' || cache === null) return {}
    return Object.fromEntries(Object.entries(cache).filter(([, entry]) => Array.isArray(entry) && typeof entry[0] === 'string' && /^[0-9a-f]{64}$/.test(entry[1])))
  } catch {
    return {}
  }
}

/** The cache only saves time: where it cannot be written, the next run hashes again. */
async function writeCache(path: string, cache: Cache): Promise<void> {
  if (Object.keys(cache).length === 0) return
  try {
    await makeFolder(dirname(path))
    const temporary = `${path}.${randomUUID()}.tmp`
    await writeFile(temporary, JSON.stringify(cache))
    await rename(temporary, path)
  } catch {
    return
  }
}
