import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, rename, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { FILE_MODE, FOLDER_MODE, type ExportManifest } from './format.ts'

/** How much is gathered before it is written. */
const BUFFER_BYTES = 1024 * 1024

/** Writes lines to a file of an export. */
export async function writeLinesFile(folder: string, file: string, lines: AsyncIterable<string>): Promise<ExportManifest['contents'][number]> {
  await mkdir(join(folder, dirname(file)), { recursive: true, mode: FOLDER_MODE })
  const handle = await open(join(folder, file), 'w', FILE_MODE)
  const hash = createHash('sha256')
  let [count, bytes, text] = [0, 0, '']
  const flush = async () => {
    const chunk = Buffer.from(text)
    hash.update(chunk)
    bytes += chunk.length
    text = ''
    await handle.appendFile(chunk)
  }
  try {
    for await (const line of lines) {
      text += `${line}\n`
      count++
      if (text.length >= BUFFER_BYTES) await flush()
    }
    await flush()
    await handle.sync()
  } finally {
    await handle.close()
  }
  return { file, lines: count, bytes, sha256: hash.digest('hex') }
}

/** The lines of a file of an export, one at a time. */
export async function* readLinesFile(folder: string, file: string): AsyncGenerator<string> {
  for await (const line of createInterface({ input: createReadStream(join(folder, file), { highWaterMark: BUFFER_BYTES }), crlfDelay: Infinity })) yield line
}

/** Size and SHA-256 of a file, or null where there is none. */
export async function digestFile(path: string): Promise<{ size: number; sha256: string } | null> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (found === null) return null
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: BUFFER_BYTES })) hash.update(chunk as Buffer)
  return { size: found.size, sha256: hash.digest('hex') }
}

/** Writes a file beside its place and moves it there, if its bytes have the digest. Otherwise tells theirs, and writes nothing. */
export async function copyChecked(path: string, sha256: string, bytes: AsyncIterable<Uint8Array>): Promise<{ sha256: string }> {
  await mkdir(dirname(path), { recursive: true, mode: FOLDER_MODE })
  const fresh = `${path}.new`
  const handle = await open(fresh, 'w', FILE_MODE)
  const hash = createHash('sha256')
  try {
    for await (const chunk of bytes) {
      hash.update(chunk)
      await handle.appendFile(chunk)
    }
    await handle.datasync()
  } finally {
    await handle.close()
  }
  const found = hash.digest('hex')
  if (found === sha256) await rename(fresh, path)
  return { sha256: found }
}
