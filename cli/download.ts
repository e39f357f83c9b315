import { mkdir, open, stat, statfs, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import pLimit from 'p-limit'
import { isSafePath } from '../patch/file-path.ts'
import type { Connection } from './config.ts'
import type { Plan, PlanExtent } from './client.ts'
import type { DownloadJournal } from './download-journal.ts'
import { CliError, EXIT } from './exit.ts'
import { formatBytes } from './format.ts'
import { countStreamed } from '../gpu-runner/garbage-collector.ts'
import { explainNetworkError, TransientError, withRetries } from './network.ts'
import type { Progress } from './progress.ts'
import { USER_AGENT } from './version.ts'

export interface DownloadInput {
  readonly connection: Connection
  readonly partial: string
  readonly plan: Plan
  /** A fresh plan for the same files, once the signed requests of this one have expired. */
  readonly renew: () => Promise<Plan>
  readonly journal: DownloadJournal
  readonly concurrency: number
  readonly progress: Progress
  readonly signal: AbortSignal
}

/** An extent of the plan at its place in its file. */
interface Piece {
  readonly path: string
  readonly start: number
  readonly end: number
  /** Index of the extent in its file. */
  readonly index: number
}

/** Fetches every extent that the journal lacks into its place in the partial folder. Gives the bytes fetched. */
export async function download(input: DownloadInput): Promise<number> {
  const { plan, journal, signal, progress } = input
  checkPlan(plan)
  const all = plan.files.flatMap(filePieces)
  const files = new Map<string, FileHandle>()
  try {
    for (const { path, size } of plan.files) files.set(path, await openPartial(input, path, size, all))
    const missing = all.filter(({ path, start, end }) => !journal.has(path, start, end))
    const total = all.reduce((sum, { start, end }) => sum + end - start, 0)
    const needed = missing.reduce((sum, { start, end }) => sum + end - start, 0)
    await requireSpace(input.partial, needed)
    let done = total - needed
    const plans = new FreshPlan(input)
    const stop = new AbortController()
    const either = AbortSignal.any([stop.signal, signal])
    const limit = pLimit(input.concurrency)
    const work = missing.map((piece) => limit(async () => {
      either.throwIfAborted()
      await fetchPiece(piece, files.get(piece.path)!, plans, input, either, (count) => progress.update((done += count), total))
      await journal.add(piece.path, piece.start, piece.end)
    }))
    try {
      await Promise.all(work)
    } catch (error) {
      stop.abort(error)
      await Promise.allSettled(work)
      signal.throwIfAborted()
      throw error
    }
    return needed
  } finally {
    await Promise.all([...files.values()].map((file) => file.close()))
  }
}

export function filePieces({ path, extents }: Plan['files'][number]): Piece[] {
  let at = 0
  return extents.map(({ length }, index) => ({ path, start: at, end: (at += length), index }))
}

/** What a registry says is not taken on trust where it names files to write. */
function checkPlan(plan: Plan): void {
  for (const { path, size, extents } of plan.files) {
    if (!isSafePath(path)) throw new CliError(EXIT.damaged, 'bad_plan', `The registry names a file that may not be written: ${JSON.stringify(path)}.`)
    const length = extents.reduce((sum, extent) => sum + extent.length, 0)
    if (length !== size) throw new CliError(EXIT.damaged, 'bad_plan', `The registry gives ${length} bytes for ${path}, which has ${size}.`)
  }
}

/** The file at its full size; ranges noted for a file that is not there, or has another size, are dropped. */
async function openPartial({ partial, journal }: DownloadInput, path: string, size: number, pieces: readonly Piece[]): Promise<FileHandle> {
  const absolute = join(partial, path)
  await mkdir(dirname(absolute), { recursive: true })
  const found = await stat(absolute).catch(() => null)
  if (found?.size !== size) {
    for (const { path: of, start, end } of pieces) {
      if (of === path && journal.has(path, start, end)) await journal.drop(path, start, end)
    }
  }
  const file = await open(absolute, found === null ? 'w+' : 'r+')
  if (found?.size !== size) await file.truncate(size)
  return file
}

async function requireSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  const free = bavail * bsize
  if (free >= bytes) return
  throw new CliError(EXIT.diskFull, 'disk_full', `${folder} needs ${formatBytes(bytes)}, but its disk has only ${formatBytes(free)} left. Free some space and run the same command again, or choose another --output.`)
}

class FreshPlan {
  private readonly input: DownloadInput
  private plan: Plan
  private renewing: Promise<void> | null = null

  constructor(input: DownloadInput) {
    this.input = input
    this.plan = input.plan
  }

  extent({ path, index, start, end }: Piece): PlanExtent {
    const extent = this.plan.files.find((file) => file.path === path)?.extents[index]
    if (extent === undefined || extent.length !== end - start) throw new CliError(EXIT.failure, 'plan_changed', 'The registry stores these files differently than a moment ago. Run the same command again.')
    return extent
  }

  renew(): Promise<void> {
    this.renewing ??= this.input.renew().then((plan) => void (this.plan = plan)).finally(() => (this.renewing = null))
    return this.renewing
  }
}

async function fetchPiece(piece: Piece, file: FileHandle, plans: FreshPlan, input: DownloadInput, signal: AbortSignal, count: (bytes: number) => void): Promise<void> {
  let counted = 0
  let url = plans.extent(piece).url
  const attempt = async () => {
    const extent = plans.extent(piece)
    url = extent.url
    if (extent.length === 0) return
    const response = await fetch(url, { method: extent.method, headers: { 'user-agent': USER_AGENT, ...extent.headers, ...authorization(url, input.connection) }, signal })
    if (!response.ok || !response.body) {
      await response.body?.cancel().catch(() => {})
      throw storeError(response.status, piece)
    }
    const isPart = response.status === 206
    if (!isPart && Number(response.headers.get('content-length') ?? extent.length) !== extent.length) {
      await response.body.cancel().catch(() => {})
      throw new CliError(EXIT.failure, 'no_ranges', `${new URL(url).origin} does not answer ranges of ${piece.path}. Is there a proxy in between that drops the Range header?`)
    }
    let at = piece.start
    for await (const chunk of response.body as ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>) {
      if (at + chunk.length > piece.end) throw new TransientError(`The store sent too much of ${piece.path}`)
      await writeAll(file, chunk, at)
      at += chunk.length
      counted += chunk.length
      count(chunk.length)
      countStreamed(chunk.length)
    }
    if (at !== piece.end) throw new TransientError(`The store sent only ${at - piece.start} of ${extent.length} bytes of ${piece.path}`)
  }
  try {
    await withRetries(attempt, signal, async (error) => {
      count(-counted)
      counted = 0
      if (error instanceof TransientError && error.expired) await plans.renew()
    })
  } catch (error) {
    input.signal.throwIfAborted()
    throw explainNetworkError(error, url)
  }
}

/** Signed requests carry their own right; only the registry's own routes get the token. */
function authorization(url: string, { registry, token }: Connection): Record<string, string> {
  return token !== null && url.startsWith(`${registry}/v1/`) ? { authorization: `Bearer ${token}` } : {}
}

function storeError(status: number, { path }: Piece): Error {
  if (status === 401 || status === 403 || status === 404) return new TransientError(`The store refuses ${path} (${status})`, true)
  if (status >= 500 || status === 408 || status === 429) return new TransientError(`The store could not send ${path} (${status})`)
  return new CliError(EXIT.failure, 'download_refused', `The store refuses ${path} (${status}). Run the same command again.`)
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten
}
