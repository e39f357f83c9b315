import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Plan, Registry } from './client.ts'
import { download, filePieces } from './download.ts'
import { JOURNAL_NAME, openJournal, type DownloadJournal } from './download-journal.ts'
import { CliError, EXIT } from './exit.ts'
import { plural } from './format.ts'
import type { ManifestTensor } from '../patch/manifest.ts'
import { formatLockfile, LOCKFILE_NAME, type Lockfile } from './lockfile.ts'
import { openOutputFolder, OWNER_NAME, type OutputFolder } from './output-folder.ts'
import { startProgress } from './progress.ts'
import type { Session } from './session.ts'
import { findDamage } from './verify.ts'

/** Files, settled to the byte before anything is downloaded. */
export interface FetchSource {
  /** Differs wherever the bytes do. */
  readonly identity: string
  readonly files: readonly { readonly path: string; readonly size: number; readonly etag: string }[]
  readonly plan: () => Promise<Plan>
  readonly tensors: readonly ManifestTensor[]
  /** That made the changed files; null for files that were not merged. */
  readonly derivation: string | null
  /** To be written beside the files. */
  readonly lock: Lockfile | null
}

export interface GetResult {
  readonly output: string
  readonly fetchedBytes: number
  /** Ranges that were damaged on disk and fetched again. */
  readonly repaired: number
}

/** Fetches into `<output>.partial`, verifies every byte there, writes the lockfile where there is one, and moves it into place. */
export async function getInto(session: Session, registry: Registry, source: FetchSource, path: string, options: { force?: boolean; concurrency: number }): Promise<GetResult> {
  const folder = await openOutputFolder(path, options.force ?? false)
  let journal: DownloadJournal | null = null
  try {
    journal = await openJournal(folder.partial, source.identity) ?? (await startOver(session, folder, source.identity))
    const result = await fillAndVerify(session, registry, source, folder, journal, options.concurrency)
    if (source.lock !== null) await writeFile(join(folder.partial, LOCKFILE_NAME), formatLockfile(source.lock))
    await journal.close()
    journal = null
    await rm(join(folder.partial, JOURNAL_NAME))
    await folder.finish()
    return { output: folder.output, ...result }
  } finally {
    await journal?.close()
    await folder.release()
  }
}

/** The partial folder holds the beginning of something else. */
async function startOver(session: Session, folder: OutputFolder, identity: string): Promise<DownloadJournal> {
  session.note(`${folder.partial} holds the beginning of another download, which is discarded.`)
  for (const name of await readdir(folder.partial)) {
    if (name !== OWNER_NAME) await rm(join(folder.partial, name), { recursive: true, force: true })
  }
  const journal = await openJournal(folder.partial, identity)
  if (journal === null) throw new CliError(EXIT.failure, 'output_busy', `${folder.partial} cannot be emptied. Remove it and run the same command again.`)
  return journal
}

async function fillAndVerify(session: Session, registry: Registry, source: FetchSource, folder: OutputFolder, journal: DownloadJournal, concurrency: number) {
  const plan = checkFiles(await source.plan(), source)
  let fetchedBytes = 0
  let repaired = 0
  for (let round = 0; ; round++) {
    const downloading = startProgress('Downloading', 'bytes', session.quiet)
    fetchedBytes += await download({
      connection: registry.connection, partial: folder.partial, plan, renew: source.plan, journal, concurrency, progress: downloading, signal: session.signal,
    }).finally(() => downloading.stop())
    const verifying = startProgress('Verifying', 'bytes', session.quiet)
    const damage = await findDamage({
      folder: folder.partial, plan, tensors: source.tensors, derivation: source.derivation, progress: verifying, signal: session.signal,
    }).finally(() => verifying.stop())
    if (damage.length === 0) return { fetchedBytes, repaired }
    const where = damage.slice(0, 3).map(({ path, start, end }) => `${path} (bytes ${start} to ${end})`).join(', ')
    if (round > 0) throw new CliError(EXIT.damaged, 'damaged', `What the registry sends is not what its manifest says: ${where}. The registry's storage, or something on the way, changes the bytes.`, { details: { damage } })
    repaired = damage.length
    session.warn(`${plural(damage.length, 'damaged range')} found, fetching again: ${where}.`)
    for (const { path, start, end } of plan.files.flatMap(filePieces)) {
      if (damage.some((range) => range.path === path && range.start < end && start < range.end)) await journal.drop(path, start, end)
    }
  }
}

/** The plan is for exactly the files that were promised. */
function checkFiles(plan: Plan, { files }: FetchSource): Plan {
  const promised = new Map(files.map(({ path, size, etag }) => [path, `${size} ${etag}`]))
  const isSame = plan.files.length === promised.size && plan.files.every(({ path, size, etag }) => promised.get(path) === `${size} ${etag}`)
  if (!isSame) throw new CliError(EXIT.damaged, 'bad_plan', 'The registry plans other files than it has named. Run the same command again.')
  return plan
}
