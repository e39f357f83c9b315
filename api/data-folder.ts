import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { lock } from 'proper-lockfile'
import { makeFolder } from '../gpu-runner/make-folder.ts'
import { ConfigError } from './config.ts'

/** A lock that was not renewed for so long belongs to a server that has crashed. */
const STALE_MS = 10_000

/** Internal models, and the keys that sign, are for nobody else on the machine. */
const PRIVATE = 0o700

export interface LockedFolder {
  release(): Promise<void>
}

/** Makes the data folder and takes it for this process. Throws ConfigError where another server has it. */
export async function lockDataFolder(folder: string, onLost: (error: Error) => void): Promise<LockedFolder> {
  await makeFolder(folder, PRIVATE).catch((error: Error) => {
    throw new ConfigError(`The data folder ${folder} cannot be made: ${error.message}. Choose another with --data.`)
  })
  const pidFile = join(folder, 'server.pid')
  const take = () => lock(folder, { lockfilePath: join(folder, 'server.lock'), stale: STALE_MS, update: STALE_MS / 4, onCompromised: onLost })
  const release = await take().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ELOCKED') throw new ConfigError(`The data folder ${folder} cannot be locked: ${error.message}`)
    return takeOver(folder, pidFile, take)
  })
  await writeFile(pidFile, `${process.pid}\n`)
  return { release }
}

/** A lock of a process that is no longer there is taken over at once; of a living one, never. */
async function takeOver(folder: string, pidFile: string, take: () => Promise<() => Promise<void>>): Promise<() => Promise<void>> {
  const pid = Number(await readFile(pidFile, 'utf8').catch(() => ''))
  if (pid > 0 && !isAlive(pid)) {
    const deadline = Date.now() + STALE_MS + 2_000
    while (Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 250))
      const release = await take().catch((error: NodeJS.ErrnoException) => (error.code === 'ELOCKED' ? null : Promise.reject(error)))
      if (release !== null) return release
    }
  }
  throw new ConfigError(
    `Another server${pid > 0 ? ` (process ${pid})` : ''} is using the data folder ${folder}. Stop it first, or start this one with another --data folder.`,
  )
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
