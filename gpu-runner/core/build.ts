import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { lock } from 'proper-lockfile'
import { compileObjects, contentsOf, makeFile, removeOld } from './objects.ts'
import { run } from './run-command.ts'

const SOURCES = dirname(fileURLToPath(import.meta.url))
const OUTPUT = join(SOURCES, '..', '..', 'build', 'core')
const EXTENSION = process.platform === 'darwin' ? 'dylib' : 'so'
const COMPILERS = ['c++', 'g++', 'clang++']

/** No -ffast-math and no contraction: the rule names every fused operation (docs/numerics.md). */
const FLAGS = ['-std=c++17', '-O3', '-DNDEBUG', '-ffp-contract=off', '-fno-math-errno', '-fPIC', '-pthread', '-fvisibility=hidden', '-w']
const LINK_FLAGS = ['-shared', '-pthread']

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
  const release = await lock(OUTPUT, { stale: 120_000, retries: { forever: true, minTimeout: 100, maxTimeout: 100 } })
  try {
    if (!existsSync(library)) await compile(library)
  } finally {
    await release()
  }
  return library
}

async function fingerprint(): Promise<string> {
  const hash = createHash('sha256').update(await contentsOf(SOURCES, /\.(cpp|h)$/))
  hash.update(JSON.stringify([FLAGS, LINK_FLAGS, process.env.CXX ?? '', process.platform, process.arch]))
  return hash.digest('hex').slice(0, 12)
}

async function compile(library: string): Promise<void> {
  const compiler = await findCompiler()
  const folder = join(OUTPUT, 'objects')
  const sources = (await readdir(SOURCES)).filter((name) => name.endsWith('.cpp')).sort().map((name) => join(SOURCES, name))
  try {
    const objects = await compileObjects(sources, { compiler, flags: FLAGS, headers: [SOURCES], folder })
    await makeFile(library, compiler, [...LINK_FLAGS, ...objects])
  } catch (error) {
    throw new Error(`the merge core does not compile: ${(error as Error).message}`)
  }
  await removeOld(folder, /./)
  await removeOld(OUTPUT, /^libportllm_core-/)
}

async function findCompiler(): Promise<string> {
  const candidates = process.env.CXX ? [process.env.CXX] : COMPILERS
  for (const compiler of candidates) {
    if ((await run(compiler, ['--version'])) !== 'missing') return compiler
  }
  throw new Error(
    `no C++ compiler found (tried ${candidates.join(', ')}): the merge core is compiled at first use. ` +
      'Install one (Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), or set CXX to its path',
  )
}

if (process.argv[1] && import.meta.filename === process.argv[1]) {
  console.log(await buildCore())
}
