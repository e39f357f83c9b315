import { createHash } from 'node:crypto'
import { open, rename, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import pLimit from 'p-limit'
import { checkPaths } from '../patch/file-path.ts'
import { download, SizeMismatchError } from './download.ts'
import { diskFailure, JobFailure } from './job-failure.ts'
import { makeFolder } from './make-folder.ts'
import type { SignedFile } from './protocol.ts'

const FILES_AT_ONCE = 2

interface Fetch {
  readonly signal: AbortSignal
  /** Told of every byte that is there; at once of those that an earlier attempt has fetched. */
  onBytes(count: number): void
}

/** Writes files into a folder, each under its own name only once it is whole and has its digest. Throws JobFailure. */
export async function fetchFiles(files: readonly SignedFile[], folder: string, fetch: Fetch): Promise<void> {
  checkPaths(files.map(({ path }) => path))
  const failed = new AbortController()
  const signal = AbortSignal.any([fetch.signal, failed.signal])
  const limit = pLimit(FILES_AT_ONCE)
  await Promise.all(files.map((file) => limit(async () => {
    try {
      await fetchFile(file, join(folder, file.path), { ...fetch, signal })
    } catch (error) {
      const named = namingFile(file, error)
      failed.abort(named)
      throw named
    }
  })))
}

async function fetchFile({ size, sha256, extents, path }: SignedFile, target: string, { signal, onBytes }: Fetch): Promise<void> {
  signal.throwIfAborted()
  if ((await stat(target).catch(() => null))?.size === size) return onBytes(size)
  await makeFolder(dirname(target))
  const partial = `${target}.partial`
  const hash = createHash('sha256')
  const handle = await open(partial, 'w')
  try {
    for (const { get, length } of extents) {
      for await (const chunk of download(get, length, signal)) {
        await handle.writeFile(chunk)
        hash.update(chunk)
        onBytes(chunk.byteLength)
      }
    }
  } finally {
    await handle.close()
  }
  const { size: written } = await stat(partial)
  if (written !== size) throw new JobFailure('input_changed', `${path} has ${written} bytes, the registry announced ${size}.`, false)
  if (sha256 !== null && hash.digest('hex') !== sha256) throw new JobFailure('input_changed', `${path} does not have the digest that the registry announced. A new attempt fetches it again.`, true)
  await rename(partial, target)
}

function namingFile({ path }: SignedFile, error: unknown): unknown {
  if (error instanceof SizeMismatchError) return new JobFailure('input_changed', `${path} is not what the registry announced: ${error.message}.`, false)
  return diskFailure(error) ?? error
}
