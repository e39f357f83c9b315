import { readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import lockfile from 'proper-lockfile'
import { makeFolder } from './make-folder.ts'

/** A lock whose holder has not been heard of for this long is a dead runner's. */
const STALE_MILLISECONDS = 10_000
const POLL_MILLISECONDS = 500
/** What no attempt has come back to for this long is removed. */
const KEPT_MILLISECONDS = 7 * 86_400_000

/** A folder of one job on this machine: a later attempt finds there what an earlier one left, such as checkpoints. */
export interface Scratch {
  readonly folder: string
  /** Lets go of it, and removes it unless another attempt may go on with it. */
  close(keep: boolean): Promise<void>
}

/** Waits for an attempt that still has it. Folders are below PORTLLM_SCRATCH, or the system's folder for temporary files. */
export async function openScratch(jobId: string, signal: AbortSignal): Promise<Scratch> {
  const root = process.env.PORTLLM_SCRATCH || join(tmpdir(), 'portllm-scratch')
  const folder = join(root, jobId)
  await makeFolder(root, 0o700)
  await removeForgotten(root, jobId)
  const release = await lock(folder, signal)
  try {
    await makeFolder(folder, 0o700)
  } catch (error) {
    await release()
    throw error
  }
  return {
    folder,
    async close(keep) {
      if (!keep) await rm(folder, { recursive: true, force: true })
      await release()
    },
  }
}

async function lock(folder: string, signal: AbortSignal): Promise<() => Promise<void>> {
  for (;;) {
    signal.throwIfAborted()
    try {
      const release = await lockfile.lock(folder, { realpath: false, stale: STALE_MILLISECONDS })
      // Whoever found the lock stale has it now; giving it back is then not ours to do.
      return () => release().catch(() => undefined)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error
    }
    await sleep(POLL_MILLISECONDS, undefined, { signal }).catch(() => signal.throwIfAborted())
  }
}

async function removeForgotten(root: string, current: string): Promise<void> {
  for (const name of await readdir(root)) {
    const path = join(root, name)
    const found = name === current || name.endsWith('.lock') ? null : await stat(path).catch(() => null)
    if (found === null || Date.now() - found.mtimeMs < KEPT_MILLISECONDS) continue
    if (!(await lockfile.check(path, { realpath: false, stale: STALE_MILLISECONDS }))) await rm(path, { recursive: true, force: true })
  }
}
