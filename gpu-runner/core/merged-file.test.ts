import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile, mkdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { writeHeader } from '../../patch/safetensors.ts'
import { loadCore } from './core.ts'
import type { Segment } from './merged-file.ts'
import type { Contribution } from './tensor-merge.ts'

const folder = await mkdtemp(join(tmpdir(), 'portllm-merged-file-'))
const mounts: string[] = []
afterAll(async () => {
  for (const mount of mounts) execFileSync('umount', [mount])
  await rm(folder, { recursive: true, force: true })
})

const ROWS = 1500
const COLS = 700
const TENSOR = ROWS * COLS * 2
const TAIL = 9_000_001
/** Tensors of which thousands are merged in batches. */
const SMALL = Array.from({ length: 1000 }, (_, i) => ({ name: `small.${i}`, dtype: 'BF16' as const, shape: [7, 3] }))
const PREFIX = writeHeader([
  { name: 'a', dtype: 'BF16', shape: [ROWS, COLS] },
  { name: 'b', dtype: 'BF16', shape: [ROWS, COLS] },
  ...SMALL,
  { name: 'tail', dtype: 'U8', shape: [TAIL] },
])
const HEADER = PREFIX.byteLength
const SMALL_AT = HEADER + 2 * TENSOR
const TAIL_AT = SMALL_AT + 1000 * 42

/** A source file: two bf16 tensors, many small ones, a tail that takes several pieces to copy. */
async function writeSource(): Promise<{ path: string; bytes: Buffer }> {
  const bytes = Buffer.alloc(TAIL_AT + TAIL)
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 31 + (i >> 9)) & 255
  for (let i = HEADER; i < TAIL_AT; i += 2) bytes[i + 1] = 0x3c
  bytes.set(PREFIX)
  const path = join(folder, 'source')
  await writeFile(path, bytes)
  return { path, bytes }
}
const source = await writeSource()

function product(rank: number, size = 1 / 16): Contribution[] {
  const factor = (rows: number, cols: number) => ({ bytes: new Uint8Array(Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i) * size).buffer), dtype: 'F32' as const, offset: 0, strides: [cols, 1] as const })
  return [{ kind: 'product', left: factor(ROWS, rank), right: factor(rank, COLS), rank, scale: 2 }]
}

const merge = (offset: number, rank: number) => ({ kind: 'merge' as const, offset, dtype: 'BF16' as const, rows: ROWS, cols: COLS, contributions: product(rank) })

test('segments arrive in order, and the merged ones equal mergeRows', async () => {
  const core = await loadCore()
  const header = new TextEncoder().encode('another header, and longer than a word')
  const lazily = merge(HEADER + TENSOR, 5)
  const segments: Segment[] = [
    { kind: 'bytes', bytes: header },
    merge(HEADER, 3),
    { kind: 'copy', offset: TAIL_AT, length: TAIL },
    { ...lazily, contributions: async () => lazily.contributions },
    { kind: 'copy', offset: 7, length: 0 },
  ]
  const destination = join(folder, 'ordered')
  const progress: number[] = []
  const result = await core.writeMergedFile({ source: source.path, destination, segments, onProgress: (done, total) => progress.push(done / total) })

  const expected: Uint8Array[] = [header]
  for (const [offset, rank] of [[HEADER, 3], [HEADER + TENSOR, 5]] as const) {
    const tensor = core.tensor(merge(offset, rank))
    const rows = source.bytes.subarray(offset, offset + TENSOR)
    const out = Buffer.alloc(TENSOR)
    await tensor.mergeRows(0, ROWS, rows, out)
    expect(result.figures[rank === 3 ? 0 : 1]).toEqual(tensor.finish())
    expected.push(out)
  }
  expected.splice(2, 0, source.bytes.subarray(TAIL_AT))
  const written = await readFile(destination)
  expect(written.equals(Buffer.concat(expected))).toBe(true)
  expect(result.bytes).toBe(written.length)
  expect(progress.at(-1)).toBe(1)
  expect(progress).toEqual(progress.toSorted((a, b) => a - b))
})

test('operands come from their files while the rows are written, and DoRA over columns reads the tensor twice', async () => {
  const core = await loadCore({ threads: 2 })
  const [low] = product(4) as [Extract<Contribution, { kind: 'product' }>]
  const magnitude = { dtype: 'F32' as const, bytes: new Uint8Array(Float32Array.from({ length: COLS }, (_, i) => 1 + i / COLS).buffer) }
  const contributions: Contribution[] = [
    { kind: 'dense', scale: 0.25, value: 'F16', base: 'BF16' },
    { ...low, kind: 'dora', magnitude, axis: 'columns', weight: 0.5 },
    { kind: 'dense', scale: 1e-3, value: 'F8_E5M2', base: null },
  ]
  // The base is tensor b of the source.
  const adapter = join(folder, 'adapter')
  const prefix = writeHeader([{ name: 'pad', dtype: 'U8', shape: [3] }, { name: 'copy', dtype: 'F16', shape: [ROWS, COLS] }, { name: 'delta', dtype: 'F8_E5M2', shape: [ROWS, COLS] }])
  const at = prefix.byteLength + 3
  const values = Buffer.alloc(at + ROWS * COLS * 3)
  for (let i = 0; i < values.length; i++) values[i] = (i * 13) & 0x3f
  values.set(prefix)
  await writeFile(adapter, values)
  const operands = [{ path: adapter, offset: at }, { path: source.path, offset: HEADER + TENSOR }, { path: adapter, offset: at + TENSOR }]
  const segments: Segment[] = [{ ...merge(HEADER, 1), contributions, operands }, { ...merge(HEADER + TENSOR, 1), contributions: [{ kind: 'replace', value: 'BF16' }], operands: [{ path: source.path, offset: HEADER }] }]
  const destination = join(folder, 'operands')
  const { figures } = await core.writeMergedFile({ source: source.path, destination, segments })

  const w = source.bytes.subarray(HEADER, HEADER + TENSOR)
  const tensor = core.tensor({ dtype: 'BF16', rows: ROWS, cols: COLS, contributions })
  await tensor.measureRows(0, ROWS, w)
  const out = Buffer.alloc(TENSOR)
  await tensor.mergeRows(0, ROWS, w, out, [values.subarray(at, at + TENSOR), source.bytes.subarray(HEADER + TENSOR, HEADER + 2 * TENSOR), values.subarray(at + TENSOR)])
  expect(figures[0]).toEqual(tensor.finish())
  const written = await readFile(destination)
  expect(written.subarray(0, TENSOR).equals(out)).toBe(true)
  expect(written.subarray(TENSOR).equals(w)).toBe(true)

  expect((await failing(destination, [{ ...segments[0]!, operands: operands.slice(1) } as Segment])).message).toMatch(/2 operands were given where the contributions have 3/)
  expect((await failing(destination, [{ ...segments[0]!, operands: [{ path: adapter, offset: at + COLS }, ...operands.slice(1)] } as Segment])).message).toMatch(/operand 0 of segment 0 takes 2100000 bytes from byte \d+ of its source, which are not of one tensor/)
  expect((await failing(destination, [{ ...segments[0]!, operands: [{ path: destination, offset: 0 }, ...operands.slice(1)] } as Segment])).message).toMatch(/operands is not a sound safetensors file/)
  expect((await failing(destination, [{ ...segments[0]!, operands: [{ path: adapter, offset: 0.5 }, ...operands.slice(1)] } as Segment])).message).toMatch(/a whole number is needed/)
  expect(await failing(destination, [{ ...segments[0]!, operands: [{ path: join(folder, 'nowhere'), offset: 0 }, ...operands.slice(1)] } as Segment])).toMatchObject({ code: 'ENOENT', path: join(folder, 'nowhere') })
  expect((await readFile(destination)).equals(written)).toBe(true)
})

test('files of several sources are written together, each as if it were written alone', async () => {
  const core = await loadCore({ threads: 3 })
  const other = join(folder, 'other')
  await writeFile(other, Buffer.from(source.bytes).reverse().fill(source.bytes.subarray(0, HEADER), 0, HEADER))
  const files = Array.from({ length: 7 }, (_, i) => ({
    source: i % 2 ? other : source.path,
    destination: join(folder, `together-${i}`),
    segments: i === 3 ? [] : [{ kind: 'copy' as const, offset: 0, length: HEADER }, merge(HEADER, i + 1), { kind: 'copy' as const, offset: HEADER + TENSOR, length: TENSOR + 1000 * 42 + TAIL }],
  }))
  const progress: number[] = []
  const together = await core.writeMergedFiles({ files, onProgress: (done, total) => progress.push(done / total) })
  expect(progress.at(-1)).toBe(1)
  expect(together.profile.kernel).toBeGreaterThan(0)
  for (const [i, file] of files.entries()) {
    const destination = join(folder, 'alone')
    const alone = await core.writeMergedFile({ ...file, destination })
    expect(together.files[i]).toEqual(alone)
    expect((await readFile(destination)).equals(await readFile(file.destination))).toBe(true)
  }
})

test('where one of several files fails, the error names it, and what was not finished is removed', async () => {
  const core = await loadCore()
  const own = join(folder, 'one-fails')
  await mkdir(own)
  const file = (name: string, segments: Segment[]) => ({ source: source.path, destination: join(own, name), segments })
  const error = await core.writeMergedFiles({ files: [
    file('good', [merge(HEADER, 2)]),
    file('bad', [{ ...merge(HEADER, 3), contributions: () => Promise.reject(new Error('no adapter')) }]),
  ] }).then(() => expect.unreachable('the merge succeeded'), (thrown: Error) => thrown)
  expect(error.message).toBe('no adapter')
  expect(await readdir(own)).toEqual([])
  const missing = await core.writeMergedFiles({ files: [file('good', [merge(HEADER, 2)]), { ...file('bad', []), destination: join(own, 'no', 'bad') }] }).catch((thrown) => thrown)
  expect(missing).toMatchObject({ code: 'ENOENT', path: join(own, 'no', 'bad') })
  expect(await readdir(own)).toEqual([])
})

test('figures are the norms, or only the count of what is not finite, or nothing', async () => {
  const core = await loadCore()
  const segments = [{ ...merge(HEADER, 1), contributions: product(1, 2 ** 64) }, merge(HEADER + TENSOR, 1)]
  const kept = await Promise.all((['all', 'count', 'none'] as const).map(async (figures) => (await core.writeMergedFile({ source: source.path, destination: join(folder, `figures-${figures}`), segments, figures })).figures))
  expect(kept[0]![0]!.nonFinite).toBeGreaterThan(1000)
  expect(kept[0]![1]!.patchNorm).toBeGreaterThan(0)
  expect(kept[1]).toEqual(kept[0]!.map(({ nonFinite }) => ({ patchNorm: 0, realisedNorm: 0, residualNorm: 0, nonFinite })))
  expect(kept[2]).toEqual(kept[0]!.map(() => ({ patchNorm: 0, realisedNorm: 0, residualNorm: 0, nonFinite: 0 })))
})

test('several thousand small tensors, in batches, with one thread and with many', async () => {
  const small = { kind: 'merge' as const, dtype: 'BF16' as const, rows: 7, cols: 3 }
  const factor = (rows: number, cols: number) => ({ bytes: new Uint8Array(Float32Array.from({ length: rows * cols }, () => 0.25).buffer), dtype: 'F32' as const, offset: 0, strides: [cols, 1] as const })
  const wide: Contribution[] = [{ kind: 'product', left: factor(7, 2000), right: factor(2000, 3), rank: 2000, scale: 1 }]
  const segments: Segment[] = Array.from({ length: 2000 }, (_, i) => i % 2 ? { kind: 'copy', offset: HEADER + i, length: 13 } : { ...small, offset: SMALL_AT + i * 21, contributions: () => wide })
  const outputs = []
  for (const threads of [1, 5]) {
    const destination = join(folder, `small-${threads}`)
    const { figures } = await (await loadCore({ threads })).writeMergedFile({ source: source.path, destination, segments })
    expect(figures).toHaveLength(1000)
    outputs.push(await readFile(destination))
  }
  expect(outputs[0]!.equals(outputs[1]!)).toBe(true)
})

test('a file of one empty segment list is empty, and an existing destination is replaced whole', async () => {
  const core = await loadCore()
  const destination = join(folder, 'replaced')
  await writeFile(destination, 'what was there before')
  await core.writeMergedFile({ source: source.path, destination, segments: [{ kind: 'copy', offset: HEADER, length: 4 }] })
  expect(await readFile(destination)).toEqual(source.bytes.subarray(HEADER, HEADER + 4))
  await core.writeMergedFile({ source: source.path, destination, segments: [] })
  expect((await readFile(destination)).length).toBe(0)
})

async function failing(destination: string, segments: Segment[], options: { signal?: AbortSignal; onProgress?: () => void } = {}): Promise<NodeJS.ErrnoException> {
  const core = await loadCore()
  return core.writeMergedFile({ source: source.path, destination, segments, ...options }).then(
    () => expect.unreachable('the merge succeeded'),
    (error) => error,
  )
}

test('a failed merge leaves the destination as it was, and nothing beside it', async () => {
  const own = join(folder, 'failed')
  await mkdir(own)
  const destination = join(own, 'model.safetensors')
  await writeFile(destination, 'before')

  expect((await failing(destination, [{ kind: 'copy', offset: 0, length: source.bytes.length + 1 }])).message).toMatch(/segment 0 takes bytes 0\.\.\+\d+ of .*source, which has/)
  expect((await failing(destination, [{ kind: 'copy', offset: -1, length: 3 }])).message).toMatch(/segment 0/)
  expect((await failing(destination, [{ kind: 'copy', offset: 0.5, length: 3 }])).message).toMatch(/segment 0/)
  expect((await failing(destination, [merge(HEADER, 3), { ...merge(HEADER, 3), rows: ROWS + 1 }])).message).toMatch(/left factor has/)
  expect((await failing(destination, [{ ...merge(HEADER, 3), contributions: () => Promise.reject(new Error('no adapter')) }])).message).toBe('no adapter')
  expect((await failing(destination, [merge(HEADER, 3)], { signal: AbortSignal.abort(new Error('enough')) })).message).toBe('enough')

  const controller = new AbortController()
  const many: Segment[] = Array.from({ length: 200 }, () => ({ kind: 'copy', offset: HEADER, length: source.bytes.length - HEADER }))
  const running = failing(destination, many, { signal: controller.signal })
  setTimeout(() => controller.abort(new Error('stopped half-way')), 30)
  expect((await running).message).toBe('stopped half-way')

  expect(await readdir(own)).toEqual(['model.safetensors'])
  expect(await readFile(destination, 'utf8')).toBe('before')
})

test('a missing source or folder is named with its code', async () => {
  const core = await loadCore()
  await expect(core.writeMergedFile({ source: join(folder, 'nowhere'), destination: join(folder, 'x'), segments: [] })).rejects.toMatchObject({ code: 'ENOENT', path: join(folder, 'nowhere') })
  await expect(core.writeMergedFile({ source: source.path, destination: join(folder, 'no', 'x'), segments: [] })).rejects.toMatchObject({ code: 'ENOENT', path: join(folder, 'no', 'x') })
})

/** A file system of 4 MB; needs root, which CI has. */
function mountSmallDisk(): string | null {
  const mount = join(folder, 'disk')
  try {
    execFileSync('mkdir', [mount])
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mount], { stdio: 'ignore' })
    mounts.push(mount)
    return mount
  } catch {
    return null
  }
}

const disk = mountSmallDisk()

test.skipIf(disk === null)('a full disk is ENOSPC, names the destination, and leaves nothing behind', async () => {
  const destination = join(disk!, 'model.safetensors')
  for (const segments of [
    [{ kind: 'copy' as const, offset: HEADER, length: source.bytes.length - HEADER }],
    [{ kind: 'bytes' as const, bytes: source.bytes }],
    [0, 1, 2].map(() => merge(HEADER, 3)),
  ]) {
    const error = await failing(destination, segments)
    expect(error.code).toBe('ENOSPC')
    expect(error.path).toBe(destination)
    expect(error.message).toContain(destination)
    expect(error.message).toMatch(/disk is full: free space or choose another folder/)
    expect(await readdir(disk!)).toEqual([])
  }
})
