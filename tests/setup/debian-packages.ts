import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * Installs Debian packages where this is root. Elsewhere, and where it fails, nothing is said: whoever needs them looks
 * again, and says so. Test files run side by side, and apt-get fails while another one runs: one waits for the other.
 */
export function installDebianPackages(...names: readonly string[]): void {
  if (process.getuid?.() !== 0) return
  const script = 'apt-get update -q; apt-get install -y -q --no-install-recommends "$@"'
  spawnSync('flock', [join(tmpdir(), 'portllm-apt.lock'), 'sh', '-c', script, 'sh', ...names], { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } })
}
