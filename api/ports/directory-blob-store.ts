import { createHash } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { copyFile, link, mkdir, open, readdir, rename, rm, rmdir, stat, unlink, type FileHandle } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { dirname, join } from 'node:path'
import { assertKey, assertStagedKey, BlobMissingError, blobKey, type BlobStore, type ByteRange, type SignedRequest, type StagedPart } from './blob-store.ts'
import type { Clock } from './clock.ts'
import { DiskFullError, isDiskFull } from './disk-full.ts'
import { listFolder } from './directory-blob-list.ts'
import { signBlobUrl, type BlobConstraints } from './directory-blob-signature.ts'
import { countStreamed } from '../../gpu-runner/garbage-collector.ts'
import { readRange } from './read-range.ts'
import { sendFile } from './send-file.ts'

export interface DirectoryBlobStore extends BlobStore {
  readonly folder: string
  /** Checks the signature of a URL of this store. Null: not one of ours, or expired. */
  verify(method: string, key: string, query: URLSearchParams): BlobConstraints | null
  /** Stores exactly what was signed, whole or not at all. Throws BlobRefusedError for other bytes. */
  write(key: string, constraints: BlobConstraints, body: AsyncIterable<Uint8Array>): Promise<void>
  /** Opens the object, then `begin`s the response and sends the range. Once begun, a failure cuts the response off. */
  send(key: string, range: ByteRange, response: ServerResponse, begin: () => void): Promise<void>
}

/** What was sent is not what was signed. */
export class BlobRefusedError extends Error {
  readonly reason: 'size' | 'digest'
  constructor(reason: BlobRefusedError['reason'], message: string) {
    super(message)
    this.name = 'BlobRefusedError'
    this.reason = reason
  }
}

/**
 * Blobs in a folder. A whole object is written beside its place and renamed into it. Parts of a large one are
 * written at their offset into `<object>.partial`, and count once `<object>.parts/<number>` names their size.
 */
export function createDirectoryBlobStore({ folder, publicUrl, key: secret, clock }: { folder: string; publicUrl: string; key: Uint8Array; clock: Clock }): DirectoryBlobStore {
  const signature = signBlobUrl({ publicUrl, secret, clock })

  function pathOf(key: string): string {
    assertKey(key)
    return join(folder, key)
  }

  function openObject(key: string): Promise<FileHandle> {
    return open(pathOf(key)).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'ENOENT' ? new BlobMissingError(key) : error
    })
  }

  async function namingFolder<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw isDiskFull(error) ? new DiskFullError(folder, { cause: error }) : error
    }
  }

  async function writeWhole(path: string, { size, sha256 }: BlobConstraints, body: AsyncIterable<Uint8Array>): Promise<void> {
    const incoming = join(folder, 'incoming', crypto.randomUUID())
    await mkdir(dirname(incoming), { recursive: true })
    const handle = await open(incoming, 'wx')
    try {
      await writeBody(handle, 0, size!, sha256, body)
      await handle.close()
      await mkdir(dirname(path), { recursive: true })
      await rename(incoming, path)
    } catch (error) {
      await handle.close().catch(() => {})
      await rm(incoming, { force: true })
      throw error
    }
  }

  async function writePart(path: string, { size, sha256, part }: BlobConstraints, body: AsyncIterable<Uint8Array>): Promise<void> {
    const marker = join(`${path}.parts`, String(part!.number))
    await mkdir(dirname(marker), { recursive: true })
    // While its bytes are being written again, the part does not count.
    await rm(marker, { force: true })
    const handle = await open(`${path}.partial`, constants.O_WRONLY | constants.O_CREAT)
    try {
      await writeBody(handle, part!.offset, size!, sha256, body)
    } finally {
      await handle.close()
    }
    const done = await open(marker, 'w')
    await done.writeFile(String(size))
    await done.close()
  }

  function signPut(key: string, put: BlobConstraints): SignedRequest {
    pathOf(key)
    return { method: 'PUT', url: signature.sign('PUT', key, put), headers: { 'Content-Type': 'application/octet-stream' } }
  }

  return {
    folder,
    verify: signature.verify,
    write: (key, constraints, body) =>
      namingFolder(() => (constraints.part === undefined ? writeWhole : writePart)(pathOf(key), constraints, body)),
    list: (prefix) => listFolder(folder, prefix),
    async read(key, range, options = {}) {
      return readRange(await openObject(key), range, options)
    },
    async open(key) {
      const handle = await openObject(key)
      return {
        file: handle.fd,
        read: (into, position) => readFully(handle, into, position),
        close: () => handle.close(),
      }
    },
    async remove(sha256) {
      await rm(pathOf(blobKey(sha256)), { force: true })
    },
    async send(key, range, response, begin) {
      const handle = await openObject(key)
      begin()
      try {
        await sendFile(handle, range, response)
        response.end()
      } catch (error) {
        response.destroy(error as Error)
      } finally {
        await handle.close()
      }
    },
    async size(key) {
      const found = await statOrNull(pathOf(key))
      return found?.size ?? null
    },
    putBlob: (sha256, bytes) =>
      namingFolder(async () => {
        const path = pathOf(blobKey(sha256))
        if ((await statOrNull(path)) !== null) return
        await writeWhole(path, { size: bytes.length, sha256 }, once(bytes))
      }),
    async signGet(key, range) {
      pathOf(key)
      const headers: Record<string, string> = range === null ? {} : { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` }
      return { method: 'GET', url: signature.sign('GET', key, range === null ? {} : { range }), headers } satisfies SignedRequest
    },
    async signPut(key, put) {
      return signPut(key, put)
    },
    async signParts(key, parts) {
      const objectSize = parts.reduce((sum, { size }) => sum + size, 0)
      let offset = 0
      return parts.map(({ number, size }) => {
        const part = { number, offset, objectSize }
        offset += size
        return signPut(key, { size, part })
      })
    },
    async stagedParts(key) {
      const path = pathOf(key)
      const whole = await statOrNull(path)
      if (whole !== null) return [{ number: 1, size: whole.size }]
      const names = await readdir(`${path}.parts`).catch(() => [])
      const parts = await Promise.all(names.map((name) => readMarker(join(`${path}.parts`, name), Number(name))))
      return parts.filter((part) => part !== null).sort((a, b) => a.number - b.number)
    },
    assemble: (key, parts) =>
      namingFolder(async () => {
        const path = pathOf(key)
        if ((await statOrNull(path)) !== null) return
        const size = parts.reduce((sum, part) => sum + part.size, 0)
        const partial = await statOrNull(`${path}.partial`)
        if (partial === null || partial.size !== size) throw new BlobMissingError(key)
        await rename(`${path}.partial`, path)
        await rm(`${path}.parts`, { recursive: true, force: true })
      }),
    promote: (key, blob) =>
      namingFolder(async () => {
        const target = pathOf(blobKey(blob.sha256))
        const held = await statOrNull(target)
        if (held !== null) {
          if (held.size !== blob.size) throw new Error(`blob ${blob.sha256} is there with ${held.size} bytes, not ${blob.size}`)
          return
        }
        const staged = await statOrNull(pathOf(key))
        if (staged === null || staged.size !== blob.size) throw new BlobMissingError(key)
        await mkdir(dirname(target), { recursive: true })
        await linkOrCopy(pathOf(key), target, join(folder, 'incoming'))
        await syncFolder(dirname(target))
      }),
    async discard(prefix) {
      assertStagedKey(prefix)
      const path = pathOf(prefix)
      for (const name of [path, `${path}.partial`, `${path}.parts`]) await rm(name, { recursive: true, force: true })
      await removeEmptyFolders(dirname(path), folder)
    },
  }
}

async function writeBody(handle: FileHandle, start: number, size: number, sha256: string | undefined, body: AsyncIterable<Uint8Array>): Promise<void> {
  const hash = sha256 === undefined ? null : createHash('sha256')
  let written = 0
  for await (const chunk of body) {
    if (written + chunk.length > size) throw new BlobRefusedError('size', `More than the announced ${size} bytes were sent.`)
    hash?.update(chunk)
    countStreamed(chunk.length)
    for (let from = 0; from < chunk.length; ) {
      const { bytesWritten } = await handle.write(chunk, from, chunk.length - from, start + written + from)
      from += bytesWritten
    }
    written += chunk.length
  }
  if (written !== size) throw new BlobRefusedError('size', `Only ${written} of the announced ${size} bytes arrived.`)
  const digest = hash?.digest('hex')
  if (digest !== sha256) throw new BlobRefusedError('digest', `The bytes have the SHA-256 ${digest}, not the announced ${sha256}.`)
  // What counts as stored must still be there after a power cut.
  await handle.datasync()
}

async function readFully(handle: FileHandle, into: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await handle.read(into, done, into.length - done, position + done)
    if (bytesRead === 0) throw new Error(`the stored object ends at byte ${position + done}, before ${position + into.length}`)
    done += bytesRead
  }
}

async function* once(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes
}

async function statOrNull(path: string): Promise<Stats | null> {
  return stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
}

async function readMarker(path: string, number: number): Promise<StagedPart | null> {
  const handle = await open(path).catch(() => null)
  if (handle === null) return null
  const text = await handle.readFile('utf8')
  await handle.close()
  return text === '' ? null : { number, size: Number(text) }
}

/** A hard link costs nothing and leaves the staged object for another attempt; some file systems have none. */
async function linkOrCopy(from: string, to: string, incoming: string): Promise<void> {
  try {
    await link(from, to)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'EMLINK' && code !== 'EXDEV') throw error
    const fresh = join(incoming, crypto.randomUUID())
    await mkdir(incoming, { recursive: true })
    try {
      await copyFile(from, fresh)
      await rename(fresh, to)
    } catch (copyError) {
      await unlink(fresh).catch(() => {})
      throw copyError
    }
  }
}

/** From `path` up to the folder of its prefix, which stays: somebody may be about to write into that. */
async function removeEmptyFolders(path: string, root: string): Promise<void> {
  if (dirname(path) === root) return
  const removed = await rmdir(path).then(() => true, () => false)
  if (removed) await removeEmptyFolders(dirname(path), root)
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path)
  await handle.sync().catch(() => {})
  await handle.close()
}
