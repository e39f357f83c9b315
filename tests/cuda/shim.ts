import { createHash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { run } from '../../gpu-runner/core/run-command.ts'
import { cudaSources } from '../../gpu-runner/core/cuda/build.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const INCLUDE = join(import.meta.dirname, 'shim-include')
const OUTPUT = join(ROOT, 'build/cuda-shim')

/** The rule's flags on the processor; what has undefined behaviour ends the helper. */
const FLAGS = ['-std=c++17', '-O1', '-g1', '-ffp-contract=off', '-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas', '-pthread', `-I${INCLUDE}`]
const SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined']

/** A text in one source file, found exactly once, and what takes its place. */
export interface Change {
  readonly file: string
  readonly from: string
  readonly to: string
}

/**
 * The CUDA helper, its .cu files compiled by the host's compiler against shim-include/cuda_runtime.h, with
 * AddressSanitizer and UndefinedBehaviorSanitizer. Objects are kept by their content, so that a changed one compiles alone.
 */
export async function buildShimHelper(change?: Change): Promise<string> {
  const { units, headers } = await cudaSources()
  await mkdir(OUTPUT, { recursive: true })
  const common = createHash('sha256').update(JSON.stringify([FLAGS, SANITIZERS, process.env.CXX ?? '']))
  for (const header of [...headers, ...(await readdir(INCLUDE)).sort().map((name) => join(INCLUDE, name))]) common.update(await readFile(header)).update('\0')
  const key = common.digest('hex')
  if (change && !units.some((unit) => basename(unit) === change.file)) throw new Error(`there is no ${change.file}`)

  const objects = await inTurn(units, 2, async (unit) => {
    const original = await readFile(unit, 'utf8')
    const changed = change && basename(unit) === change.file
    if (changed && original.split(change.from).length !== 2) throw new Error(`${change.file} does not have this exactly once: ${change.from}`)
    // A function: `$` in the text stands for itself.
    const text = changed ? original.replace(change.from, () => change.to) : original
    const object = join(OUTPUT, `${basename(unit)}-${createHash('sha256').update(key).update(text).digest('hex').slice(0, 12)}.o`)
    if (existsSync(object)) return object
    const source = changed ? `${object}.cpp` : unit
    if (changed) await writeFile(source, text)
    await compile(object, ['-c', '-x', 'c++', `-iquote${dirname(unit)}`, source])
    return object
  })
  const helper = join(OUTPUT, `helper-${createHash('sha256').update(objects.join('\n')).digest('hex').slice(0, 12)}`)
  if (!existsSync(helper)) await compile(helper, objects)
  return helper
}

async function compile(output: string, args: readonly string[]): Promise<void> {
  const compiler = process.env.CXX ?? 'c++'
  const temporary = `${output}.${randomUUID()}.tmp`
  const result = await run(compiler, [...FLAGS, ...SANITIZERS, '-o', temporary, ...args])
  if (result === 'missing') throw new Error(`no C++ compiler: ${compiler}`)
  if (result.status !== 0) throw new Error(`${basename(output)} does not compile:\n${result.output.slice(0, 4000)}`)
  await rename(temporary, output)
}

async function inTurn<In, Out>(items: readonly In[], atOnce: number, work: (item: In) => Promise<Out>): Promise<Out[]> {
  const results: Out[] = []
  let next = 0
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (let index; (index = next++) < items.length; ) results[index] = await work(items[index]!)
  }))
  return results
}
