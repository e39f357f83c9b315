import { open, readdir, readFile, rename, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { makeFolder } from '../gpu-runner/make-folder.ts'
import { CliError, EXIT } from './exit.ts'

/** Holds the id of the process that is at a partial folder. */
export const OWNER_NAME = '.portllm-owner'

/** A folder that appears under its name only once it is complete. Until then its files lie in `partial`. */
export interface OutputFolder {
  readonly output: string
  readonly partial: string
  /** Moves the partial folder into place, and with `replace` the old one away. */
  finish(): Promise<void>
  /** Lets another process go on with the partial folder. */
  release(): Promise<void>
}

/** Throws unless `output` is new or empty, or `replace` is given, or another process is at it. */
export async function openOutputFolder(path: string, replace: boolean): Promise<OutputFolder> {
  const output = resolve(path)
  const partial = join(dirname(output), `${basename(output)}.partial`)
  const isFull = await isNotEmpty(output)
  if (isFull && !replace) throw new CliError(EXIT.conflict, 'output_exists', `${output} exists and is not empty. Choose another folder, or replace it with --force.`)
  await makeFolder(partial).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error
    throw new CliError(EXIT.failure, 'output_impossible', `The folder ${partial} cannot be made: ${error.message}. Choose another --output.`, { cause: error })
  })
  await takeOwnership(partial, output)
  return {
    output, partial,
    async finish() {
      await rm(join(partial, OWNER_NAME), { force: true })
      if (!isFull) {
        await rmdir(output).catch((error: NodeJS.ErrnoException) => {
          if (error.code !== 'ENOENT') throw error
        })
        await rename(partial, output)
        return
      }
      const old = `${output}.replaced-${process.pid}`
      await rename(output, old)
      await rename(partial, output)
      await rm(old, { recursive: true, force: true })
    },
    release: () => rm(join(partial, OWNER_NAME), { force: true }),
  }
}

async function isNotEmpty(folder: string): Promise<boolean> {
  try {
    return (await readdir(folder)).length > 0
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return false
    if (code === 'ENOTDIR') throw new CliError(EXIT.conflict, 'output_exists', `${folder} is a file. Choose another folder.`)
    throw error
  }
}

/** A process that was killed leaves its mark behind; one that lives keeps others out. */
async function takeOwnership(partial: string, output: string): Promise<void> {
  const path = join(partial, OWNER_NAME)
  for (;;) {
    try {
      const file = await open(path, 'wx')
      await file.writeFile(String(process.pid))
      await file.close()
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      const owner = Number(await readFile(path, 'utf8').catch(() => ''))
      if (owner !== process.pid && isAlive(owner)) throw new CliError(EXIT.conflict, 'output_busy', `Another portllm (process ${owner}) is writing ${output}. Wait for it, or stop it.`)
      await rm(path, { force: true })
    }
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
