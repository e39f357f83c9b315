import { createReadStream } from 'node:fs'
import { Readable } from 'node:stream'
import { stat } from 'node:fs/promises'
import pLimit from 'p-limit'
import type { Registry, Upload, UploadPart, VersionKind, VersionName } from './client.ts'
import { CliError, EXIT } from './exit.ts'
import { putStream } from './put.ts'
import { explainNetworkError, TransientError, withRetries } from './network.ts'
import type { Progress } from './progress.ts'
import type { LocalFile } from './publishable-files.ts'
import { USER_AGENT } from './version.ts'

export interface UploadInput {
  registry: Registry
  kind: VersionKind
  version: VersionName
  upload: Upload
  files: readonly LocalFile[]
  concurrency: number
  progress: Progress
}

/** Sends every part that the registry does not hold yet. Signed requests that have expired are asked for again. */
export async function uploadParts(input: UploadInput): Promise<{ sentBytes: number }> {
  const local = new Map(input.files.map((file) => [file.path, file]))
  const missing = input.upload.files.flatMap(({ path, held, parts }) => (held ? [] : parts.filter(({ stored }) => !stored).map((part) => ({ path, part }))))
  const total = missing.reduce((sum, { part }) => sum + part.length, 0)
  let done = 0
  const count = (bytes: number) => input.progress.update((done += bytes), total)
  const fresh = new FreshParts(input)
  const limit = pLimit(input.concurrency)
  const stop = new AbortController()
  const signal = AbortSignal.any([stop.signal, input.registry.signal])
  const work = missing.map(({ path, part }) => limit(async () => {
    signal.throwIfAborted()
    const file = local.get(path)
    if (file === undefined) throw new CliError(EXIT.failure, 'unknown_file', `The registry asks for ${path}, which was not announced. Run the same command again.`)
    await sendPart(file, part, fresh, signal, count)
  }))
  try {
    await Promise.all(work)
  } catch (error) {
    stop.abort(error)
    await Promise.allSettled(work)
    input.registry.signal.throwIfAborted()
    throw explainNetworkError(error, missing[0]!.part.url)
  }
  return { sentBytes: total }
}

/** The newest signed request of each part. */
class FreshParts {
  private readonly input: UploadInput
  private upload: Upload
  private refreshing: Promise<void> | null = null

  constructor(input: UploadInput) {
    this.input = input
    this.upload = input.upload
  }

  find(path: string, number: number): UploadPart | undefined {
    return this.upload.files.find((file) => file.path === path)?.parts.find((part) => part.number === number)
  }

  refresh(): Promise<void> {
    this.refreshing ??= this.input.registry.getUpload(this.input.kind, this.input.version)
      .then((upload) => void (this.upload = upload))
      .finally(() => (this.refreshing = null))
    return this.refreshing
  }
}

async function sendPart(file: LocalFile, { number }: UploadPart, fresh: FreshParts, signal: AbortSignal, count: (bytes: number) => void): Promise<void> {
  let counted = 0
  const attempt = async () => {
    await requireUnchanged(file)
    const part = fresh.find(file.path, number)
    if (part === undefined || part.stored) return
    const stream = part.length === 0 ? Readable.from([]) : createReadStream(file.absolute, { start: part.offset, end: part.offset + part.length - 1, highWaterMark: 1 << 18 })
    const counting = async function* () {
      for await (const chunk of stream) {
        counted += chunk.length
        count(chunk.length)
        yield chunk as Uint8Array
      }
    }
    const response = await putStream(part.url, { method: part.method, signal, headers: { 'user-agent': USER_AGENT, ...part.headers, 'content-length': String(part.length) } }, counting()).finally(() => stream.destroy())
    if (response.status >= 200 && response.status < 300) return
    await requireUnchanged(file)
    throw storeError(response.status, response.text, file.path)
  }
  await withRetries(attempt, signal, async (error) => {
    count(-counted)
    counted = 0
    if (error instanceof TransientError && error.expired) await fresh.refresh()
  })
}

function storeError(status: number, answer: string, path: string): Error {
  if (status === 401 || status === 403) return new TransientError(`The store refuses the upload of ${path} (${status})`, true)
  if (status === 507) return new CliError(EXIT.diskFull, 'disk_full', `The registry has no space left for ${path}. Its operator must free some; run the same command again after that.`)
  if (status >= 500 || status === 408 || status === 429) return new TransientError(`The store could not take ${path} (${status})`)
  return new CliError(EXIT.failure, 'upload_refused', `The store refuses ${path} (${status}): ${storeMessage(answer)}. Run the same command again.`)
}

function storeMessage(answer: string): string {
  try {
    return (JSON.parse(answer) as { error: { message: string } }).error.message
  } catch {
    return /<Message>([^<]*)/.exec(answer)?.[1] ?? (answer.slice(0, 200) || 'it does not say why')
  }
}

/** The digests were announced before; a file that changes meanwhile can only be refused later. */
async function requireUnchanged(file: LocalFile): Promise<void> {
  const found = await stat(file.absolute, { bigint: true })
  if ([found.dev, found.ino, found.size, found.mtimeNs, found.ctimeNs].join(':') !== file.stamp) {
    throw new CliError(EXIT.failure, 'file_changed', `${file.absolute} changed while it was being published. Run the same command again once nothing writes to it.`)
  }
}
