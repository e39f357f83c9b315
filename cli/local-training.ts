import { rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { DataPlace, TrainResult, PythonWatch } from '../gpu-runner/python.ts'
import type { TrainingRecord } from '../patch/training.ts'
import { CliError, EXIT } from './exit.ts'
import { formatFields, plural } from './format.ts'
import { openOutputFolder } from './output-folder.ts'
import { withPython } from './python-run.ts'
import type { Answer, Session } from './session.ts'

/** After these the same command goes on at the last checkpoint; after others it would end in the same way again. */
const RESUMABLE: ReadonlySet<string> = new Set(['interrupted', 'disk_full', 'out_of_memory', 'internal'])

/** Trains into a folder that appears once it is complete. Checkpoints lie in `<folder>.work` until then. */
export async function trainInto(session: Session, folder: string, force: boolean, train: (places: { output: string; work: string }, watch: PythonWatch) => Promise<TrainResult>): Promise<Answer> {
  const output = await openOutputFolder(folder, force)
  const work = join(dirname(output.output), `${basename(output.output)}.work`)
  try {
    const { training } = await withPython(session, (watch) => train({ output: output.partial, work }, watch))
    await output.finish()
    await rm(work, { recursive: true, force: true })
    return { json: { output: output.output, training }, text: describe(output.output, training) }
  } catch (error) {
    if (error instanceof CliError && RESUMABLE.has(error.code)) await output.release()
    else await Promise.all([output.partial, work].map((path) => rm(path, { recursive: true, force: true })))
    throw error
  }
}

/** A folder that must be there, as an absolute path. */
export async function existingFolder(path: string, option: string): Promise<string> {
  const found = await stat(path).catch(() => null)
  if (!found?.isDirectory()) throw new CliError(EXIT.notFound, 'not_found', `${option} ${path}: there is no such folder.`)
  return resolve(path)
}

export async function existingFile(path: string, option: string): Promise<string> {
  const found = await stat(path).catch(() => null)
  if (!found?.isFile()) throw new CliError(EXIT.notFound, 'not_found', `${option} ${path}: there is no such file.`)
  return resolve(path)
}

/** The place of the data: a folder where one is named, else the Hub. */
export async function dataPlace(folder: string | undefined): Promise<DataPlace> {
  return folder === undefined ? { hub: true } : { folder: await existingFolder(folder, '--data') }
}

function describe(output: string, { data, curve, steps, peak_memory_bytes, wall_seconds, device_seconds, device }: TrainingRecord): string {
  const [first, last] = [curve[0], curve.at(-1)]
  return formatFields([
    ['output', output],
    ['data', `${plural(data.examples, 'example')} (${data.source}), ${data.digest}`],
    ['steps', steps],
    ['loss', first && last && `${first.loss.toFixed(4)} at step ${first.step}, ${last.loss.toFixed(4)} at step ${last.step}`],
    ['time', `${wall_seconds.toFixed(1)} s; ${device_seconds.toFixed(1)} s of ${device}`],
    ['memory', `${(peak_memory_bytes / 1e9).toFixed(2)} GB at its peak`],
  ])
}
