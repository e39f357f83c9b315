import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

/**
 * Runs a TypeScript program with the arguments of this process, whatever Node is on the PATH: one that does not run
 * TypeScript starts the one that comes as a dependency. A terminal sends Ctrl-C to both, other senders to this process
 * alone, which passes it on: a program to which a second signal means more must be `detached`, and gets each once.
 * @param {string} main path of the program
 * @param {{ detached: boolean }} options
 */
export async function runMain(main, { detached }) {
  if (process.features.typescript) return void (await import(main))
  const node = join(dirname(createRequire(import.meta.url).resolve('node/package.json')), 'bin', 'node')
  const child = spawn(node, [main, ...process.argv.slice(2)], { stdio: 'inherit', detached })
  for (const name of ['SIGINT', 'SIGTERM', ...(detached ? ['SIGHUP'] : [])]) process.on(name, () => child.kill(name))
  // The child decides how to end.
  child.on('exit', (code) => process.exit(code ?? 1))
}
