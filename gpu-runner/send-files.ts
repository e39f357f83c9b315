import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import type { MadeFile, OutputPlan } from './protocol.ts'
import { upload } from './upload.ts'

const READ_BYTES = 1024 * 1024

interface Send {
  readonly signal: AbortSignal
  /** Where the registry wants them. */
  outputs(files: readonly MadeFile[]): Promise<OutputPlan>
  onBytes(done: number, total: number): void
}

/** Announces every file of a folder and sends what the registry does not have. Returns them, in the order of their paths. */
export async function sendFiles(folder: string, { signal, outputs, onBytes }: Send): Promise<MadeFile[]> {
  const files = await digestFiles(folder, signal)
  if (files.length === 0) return []
  const plan = await outputs(files)
  const parts = plan.files.flatMap(({ path, parts }) => parts.filter(({ stored }) => !stored).map((part) => ({ path, part })))
  const total = parts.reduce((sum, { part }) => sum + part.length, 0)
  let sent = 0
  for (const { path, part: { method, url, headers, offset, length } } of parts) {
    let counted = 0
    await upload({ method, url, headers }, length, signal, async (write) => {
      // An upload that failed begins again.
      sent -= counted
      counted = 0
      for await (const chunk of readRange(join(folder, path), offset, length)) {
        await write(chunk)
        counted += chunk.byteLength
        onBytes((sent += chunk.byteLength), total)
      }
    })
  }
  return files
}

async function digestFiles(folder: string, signal: AbortSignal): Promise<MadeFile[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll(sep, '/'))
  const files: MadeFile[] = []
  for (const path of paths.sort((a, b) => (a < b ? -1 : 1))) {
    signal.throwIfAborted()
    const { size } = await stat(join(folder, path))
    const hash = createHash('sha256')
    for await (const chunk of readRange(join(folder, path), 0, size)) hash.update(chunk)
    files.push({ path, size, sha256: hash.digest('hex') })
  }
  return files
}

async function* readRange(path: string, offset: number, length: number): AsyncGenerator<Buffer, void, undefined> {
  if (length > 0) yield* createReadStream(path, { start: offset, end: offset + length - 1, highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>
}
