import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { compileObjects, makeFile, removeOld } from './objects.ts'

const COMPILER = process.env.CXX ?? 'c++'
const root = await mkdtemp(join(tmpdir(), 'portllm-objects-'))
afterAll(() => rm(root, { recursive: true }))

let sources: string
let folder: string
beforeEach(async () => {
  sources = await mkdtemp(join(root, 'sources-'))
  folder = join(sources, 'objects')
  await writeFile(join(sources, 'sum.h'), 'int sum(int, int);\n')
  await writeFile(join(sources, 'sum.cpp'), '#include "sum.h"\nint sum(int a, int b) { return a + b; }\n')
  await writeFile(join(sources, 'main.cpp'), '#include "sum.h"\nint main() { return sum(40, 2); }\n')
})

const compile = (flags: readonly string[] = []) => compileObjects([join(sources, 'sum.cpp'), join(sources, 'main.cpp')], { compiler: COMPILER, flags, headers: [sources], folder })

async function statusOf(program: string): Promise<number> {
  return promisify(execFile)(program).then(() => 0, ({ code }: { code: number }) => code)
}

test('objects are compiled once for each content of source, headers and flags, and linked', async () => {
  const first = await compile()
  await makeFile(join(sources, 'program'), COMPILER, first)
  expect(await statusOf(join(sources, 'program'))).toBe(42)
  for (const object of first) await writeFile(object, 'kept')
  expect(await compile()).toEqual(first)
  expect(await readFile(first[0]!, 'utf8')).toBe('kept')

  await writeFile(join(sources, 'sum.cpp'), '#include "sum.h"\nint sum(int a, int b) { return a * b; }\n')
  const second = await compile()
  expect([second[0] === first[0], second[1] === first[1]]).toEqual([false, true])
  await writeFile(join(sources, 'sum.h'), 'int sum(int, int);  // of two\n')
  const third = await compile()
  expect([...third, ...(await compile(['-O2']))].filter((object) => first.includes(object) || second.includes(object))).toEqual([])
})

test('a source that does not compile is named, with the compiler\'s words, and leaves nothing behind', async () => {
  await writeFile(join(sources, 'sum.cpp'), '#include "sum.h"\nint sum(int a, int b) { return a + c; }\n')
  await expect(compile()).rejects.toThrow(/exit code 1 instead of making sum\.cpp-[0-9a-f]{12}\.o:[^]*sum\.cpp:2:\d+: error: [^]*\bc\b/)
  expect((await readdir(folder)).filter((name) => !/^main\.cpp-[0-9a-f]{12}\.o$/.test(name))).toEqual([])
  await expect(makeFile(join(folder, 'x.o'), '/nowhere/c++', [])).rejects.toThrow('there is no compiler /nowhere/c++')
})

test('compiled in several processes at once, each has whole objects', async () => {
  const script = `
    import { compileObjects, makeFile } from ${JSON.stringify(join(import.meta.dirname, 'objects.ts'))}
    const objects = await compileObjects(${JSON.stringify([join(sources, 'sum.cpp'), join(sources, 'main.cpp')])}, { compiler: ${JSON.stringify(COMPILER)}, flags: [], headers: [${JSON.stringify(sources)}], folder: ${JSON.stringify(folder)} })
    await makeFile(${JSON.stringify(join(sources, 'program-'))} + process.argv[1], ${JSON.stringify(COMPILER)}, objects)`
  await Promise.all([1, 2, 3, 4].map((n) => promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, String(n)])))
  for (const n of [1, 2, 3, 4]) expect(await statusOf(join(sources, `program-${n}`))).toBe(42)
  expect(await readdir(folder)).toHaveLength(2)
})

test('what has not been used for an hour is removed', async () => {
  const [sum, main] = await compile()
  const past = new Date(Date.now() - 2 * 3_600_000)
  await utimes(sum!, past, past)
  await utimes(main!, past, past)
  await compile()
  await utimes(sum!, past, past)
  await removeOld(folder, /\.o$/)
  await expect(stat(sum!)).rejects.toThrow('ENOENT')
  expect((await stat(main!)).isFile()).toBe(true)
})
