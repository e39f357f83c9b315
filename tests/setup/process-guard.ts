import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'

export interface ProcessGuard {
  /** From now on the child ends with the guard. */
  watch(child: ChildProcess): void
  /** Ends what it watches, and removes the folder. */
  end(): Promise<void>
}

/**
 * Ends other processes and removes their folder when this process ends, however it ends: a shell of its own process group
 * waits for the end of a pipe that only we hold.
 */
export function startGuard(folder: string): ProcessGuard {
  const script = 'while read -r pid; do pids="$pids $pid"; done; kill -9 $pids; rm -rf "$0"'
  const guard = spawn('sh', ['-c', script, folder], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
  return {
    watch: ({ pid }) => void (pid !== undefined && guard.stdin.write(`${pid}\n`)),
    async end() {
      const closed = once(guard, 'close')
      guard.stdin.end()
      await closed
    },
  }
}
