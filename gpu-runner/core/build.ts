import { spawn } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { lock } from 'proper-lockfile'

const SOURCES = dirname(fileURLToPath(import.meta.url))
const OUTPUT = join(SOURCES, '..', '..', 'build', 'core')
const EXTENSION = process.platform === 'darwin' ? 'dylib' : 'so'
const COMPILERS = ['c++', 'g++', 'clang++']

/** No -ffast-math and no contraction: the rule names every fused operation (docs/numerics.md). */
const FLAGS = ['-std=c++17', '-O3', '-DNDEBUG', '-ffp-contract=off', '-fno-math-errno', '-fPIC', '-shared', '-pthread', '-fvisibility=hidden', '-w']

/**
 * Path of the core's shared library, compiled first where no library of these sources exists yet:
 * `build/core/libportllm_core-<hash of sources, flags and compiler>.{so,dylib}`. Safe to call from
 * several processes at once. `PORTLLM_CORE_LIBRARY` names a library built elsewhere instead.
 *
 * @throws Error where no C++ compiler is found, or the compiler refuses.
 */
export async function buildCore(): Promise<string> {
  const prebuilt = process.env.PORTLLM_CORE_LIBRARY
  if (prebuilt) {
    if (!existsSync(prebuilt)) throw new Error(`PORTLLM_CORE_LIBRARY names ${prebuilt}, which does not exist`)
    return prebuilt
  }
  const library = join(OUTPUT, `libportllm_core-${await fingerprint()}.${EXTENSION}`)
  if (existsSync(library)) return library

  await mkdir(OUTPUT, { recursive: true })
  const release = await lock(OUTPUT, { stale: 120_000, retries: { retries: 1200, minTimeout: 100, maxTimeout: 100 } })
  try {
    if (!existsSync(library)) {
      await compile(library)
      await removeOthers(library)
    }
  } finally {
    await release()
  }
  return library
}

async function fingerprint(): Promise<string> {
  const hash = createHash('sha256')
  for (const name of (await readdir(SOURCES)).filter((name) => /\.(cpp|h)$/.test(name)).sort()) {
    hash.update(`${name}\0`).update(await readFile(join(SOURCES, name))).update('\0')
  }
  hash.update(JSON.stringify([FLAGS, process.env.CXX ?? '', process.platform, process.arch]))
  return hash.digest('hex').slice(0, 12)
}

async function compile(library: string): Promise<void> {
  const sources = (await readdir(SOURCES)).filter((name) => name.endsWith('.cpp')).sort()
  const temporary = `${library}.${randomUUID()}.tmp`
  const candidates = process.env.CXX ? [process.env.CXX] : COMPILERS
  try {
    for (const compiler of candidates) {
      const result = await run(compiler, [...FLAGS, '-o', temporary, ...sources.map((name) => join(SOURCES, name))])
      if (result === 'missing') continue
      if (result.status !== 0) {
        throw new Error(`the merge core does not compile with ${compiler} (exit ${result.status}):\n${result.output.slice(0, 4000)}`)
      }
      await rename(temporary, library)
      return
    }
  } finally {
    await rm(temporary, { force: true })
  }
  throw new Error(
    `no C++ compiler found (tried ${candidates.join(', ')}): the merge core is compiled at first use. ` +
      'Install one (Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), or set CXX to its path',
  )
}

export function run(command: string, args: readonly string[]): Promise<'missing' | { status: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    child.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? resolve('missing') : reject(error)))
    child.on('close', (status) => resolve({ status, output }))
  })
}

/** Libraries of older sources, left alone while they are young: another checkout's process may be about to load one. */
async function removeOthers(library: string): Promise<void> {
  for (const name of await readdir(OUTPUT)) {
    const path = join(OUTPUT, name)
    if (path === library || !name.startsWith('libportllm_core-')) continue
    const age = Date.now() - (await stat(path).catch(() => ({ mtimeMs: Date.now() }))).mtimeMs
    if (age > 3_600_000) await rm(path, { force: true })
  }
}

if (process.argv[1] && import.meta.filename === process.argv[1]) {
  console.log(await buildCore())
}
