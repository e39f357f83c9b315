import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeHeader } from '../../patch/safetensors.ts'
import { CONTROL, CONTROL_WORDS, openLibrary, type SourceHandle, type TensorHandle } from './library.ts'
import { packTensor, type Contribution } from './tensor-merge.ts'

const library = await openLibrary()
const folder = await mkdtemp(join(tmpdir(), 'portllm-source-'))
const path = join(folder, 'model.safetensors')
const header = writeHeader([
  { name: 'a', dtype: 'BF16', shape: [6, 8] },
  { name: 'empty', dtype: 'BF16', shape: [0, 8] },
  { name: 'convolution', dtype: 'F32', shape: [4, 2, 3, 3] },
  { name: 'bias', dtype: 'F32', shape: [8] },
  { name: 'counts', dtype: 'I32', shape: [6, 8] },
])
const A = header.byteLength
const CONVOLUTION = A + 96
const BIAS = CONVOLUTION + 288
const COUNTS = BIAS + 32
const SIZE = COUNTS + 192

const tensors: TensorHandle[] = []
let source: SourceHandle
beforeAll(async () => {
  await writeFile(path, Buffer.concat([header, Buffer.alloc(SIZE - A, 1)]))
  const file = await open(path)
  source = library.openSource(file.fd)
  // The core keeps a descriptor of its own.
  await file.close()
})
afterAll(async () => {
  tensors.forEach((tensor) => library.free(tensor))
  library.freeSource(source)
  await rm(folder, { recursive: true })
})

function tensor(dtype: 'F32' | 'BF16' | 'F16', rows: number, cols: number, more: readonly Contribution[] = []): TensorHandle {
  const ones = (count: number) => ({ bytes: new Uint8Array(new Float32Array(count).fill(1).buffer), dtype: 'F32' as const, offset: 0, strides: [1, 1] as const })
  const made = packTensor(library, { dtype, rows, cols, contributions: [{ kind: 'product', left: ones(rows), right: ones(cols), rank: 1, scale: 1 }, ...more] })
  tensors.push(made)
  return made
}

function freed(...shape: Parameters<typeof tensor>): TensorHandle {
  const made = tensor(...shape)
  library.free(made)
  return made
}

type Row = readonly [kind: number, offset: number | bigint, at: number | bigint, length: number | bigint, tensor?: TensorHandle, firstOperand?: number | bigint]
type Operand = readonly [source: SourceHandle, offset: number | bigint]

/** `written`, or the sentence of the refusal; a refusal must leave the destination as it was. */
async function write(rows: readonly Row[], { threads = 2, destination = join(folder, 'out'), operands = [] as readonly Operand[], from = source } = {}): Promise<string> {
  if (destination !== path) await writeFile(destination, 'untouched')
  const before = await readFile(destination)
  const file = await open(destination, 'r+')
  const segments = rows.flatMap(([kind, offset, at, length, handle = 0n, first = 0n]) => [BigInt(kind), BigInt(offset), BigInt(at), BigInt(length), handle, BigInt(first)])
  try {
    await library.writeSegments([{ source: from, destination: file.fd, segments }], operands.flatMap(([handle, offset]) => [handle, BigInt(offset)]), 'scalar', threads, 'all', new BigUint64Array(CONTROL_WORDS))
    return 'written'
  } catch (error) {
    expect((await readFile(destination)).equals(before)).toBe(true)
    return (error as Error).message
  } finally {
    await file.close()
  }
}

const COPY = 0
const MERGE = 1
const MAX = 2n ** 64n - 1n

test('a tensor, a run of its rows, a convolution as a matrix, a bias as a row, and copies of anything', async () => {
  expect(await write([[MERGE, A, 0, 96, tensor('BF16', 6, 8)], [MERGE, A + 16, 96, 32, tensor('BF16', 2, 8)], [MERGE, CONVOLUTION, 200, 288, tensor('F32', 4, 18)],
    [MERGE, CONVOLUTION + 36, 500, 36, tensor('F32', 1, 9)], [MERGE, BIAS, 600, 32, tensor('F32', 1, 8)], [COPY, 0, 700, SIZE]])).toBe('written')
})

test.each<[string, () => Row[], RegExp]>([
  ['an unknown kind', () => [[2, A, 0, 96]], /segment 0 is of unknown kind/],
  ['nothing', () => [[COPY, A, 0, 0]], /segment 0 is empty/],
  ['bytes beyond the source', () => [[COPY, A, 0, SIZE - A + 1]], /segment 0 takes \d+ bytes from byte \d+ of the source, which has/],
  ['a range that overflows in the source', () => [[COPY, MAX, 0, 2]], /segment 0 takes/],
  ['a range that overflows in the destination', () => [[COPY, 0, MAX, 2]], /segment 0 lies outside any file/],
  ['a range beyond any destination', () => [[COPY, 0, 2n ** 63n - 1n, 2]], /segment 0 lies outside any file/],
  ['an overlap in the destination', () => [[COPY, 0, 0, 10], [COPY, 20, 9, 10]], /segment 1 overlaps the one before it/],
  ['another order than the destination', () => [[COPY, 0, 10, 10], [COPY, 20, 0, 10]], /segment 1 overlaps the one before it, or comes before it/],
  ['no tensor', () => [[MERGE, A, 0, 96]], /the tensor of a segment is null/],
  ['a tensor of another size', () => [[MERGE, A, 0, 96, tensor('BF16', 5, 8)]], /segment 0 has 96 bytes, its tensor has 80/],
  ['another dtype', () => [[MERGE, A, 0, 96, tensor('F16', 6, 8)]], /the tensor "a" with another dtype than its BF16/],
  ['a dtype that nothing merges', () => [[MERGE, COUNTS, 0, 192, tensor('F32', 6, 8)]], /the tensor "counts" with another dtype than its I32/],
  ['rows of another length', () => [[MERGE, A, 0, 96, tensor('BF16', 4, 12)]], /rows of 12 elements from byte 0 of the tensor "a", which does not consist of such rows/],
  ['rows that are columns', () => [[MERGE, A, 0, 96, tensor('BF16', 8, 6)]], /does not consist of such rows/],
  ['half a row', () => [[MERGE, A + 8, 0, 32, tensor('BF16', 2, 8)]], /rows of 8 elements from byte 8 of the tensor "a"/],
  ['a tensor that was freed', () => [[MERGE, A, 0, 96, freed('BF16', 6, 8)]], /the tensor of a segment is none, or has been freed/],
  ['a tensor that never was one', () => [[MERGE, A, 0, 96, 0x1000n]], /the tensor of a segment is none/],
  ['a source for a tensor', () => [[MERGE, A, 0, 96, source]], /the tensor of a segment is none/],
  ['the end of one tensor and the start of the next', () => [[MERGE, A + 64, 0, 64, tensor('BF16', 4, 8)]], /not of one tensor/],
  ['the header', () => [[MERGE, A - 16, 0, 96, tensor('BF16', 6, 8)]], /not of one tensor/],
])('refuses %s, and writes nothing', async (_name, rows, sentence) => {
  expect(await write([...rows()])).toMatch(sentence)
})

const difference: Contribution = { kind: 'dense', scale: 1, value: 'F32', base: 'BF16' }

test('operands are rows of one tensor too', async () => {
  const row = [MERGE, CONVOLUTION, 0, 288, tensor('F32', 4, 18, [{ ...difference, base: null }]), 1] as const
  expect(await write([row], { operands: [[source, A], [source, CONVOLUTION]] })).toBe('written')
  const half = [MERGE, A, 0, 48, tensor('BF16', 3, 8, [difference]), 0] as const
  expect(await write([half], { operands: [[source, COUNTS], [source, A + 48]] })).toMatch(/operand 0 of segment 0 takes the tensor "counts" with another dtype than its I32/)
  expect(await write([half], { operands: [[source, BIAS], [source, A + 48]] })).toMatch(/operand 0 of segment 0 takes 96 bytes from byte \d+ of its source, which are not of one tensor/)
  expect(await write([half], { operands: [[source, CONVOLUTION], [source, A + 48]] })).toMatch(/operand 0 of segment 0 takes rows of 8 elements from byte 0 of the tensor "convolution"/)
  const twice = [MERGE, A, 0, 96, tensor('BF16', 6, 8, [{ ...difference, value: 'BF16' }]), 0] as const
  expect(await write([twice], { operands: [[source, A], [source, A + 8]] })).toMatch(/operand 1 of segment 0 takes 96 bytes from byte \d+ of its source, which are not of one tensor/)
  expect(await write([twice], { operands: [[source, MAX], [source, A]] })).toMatch(/operand 0 of segment 0 takes 96 bytes from byte 18446744073709551615/)
  expect(await write([twice], { operands: [[source, A]] })).toMatch(/segment 0 has 2 operands, but place 0 of 1 is where they begin/)
  expect(await write([twice.with(5, MAX) as unknown as Row], { operands: [[source, A], [source, A]] })).toMatch(/place 18446744073709551615 of 2/)
  expect(await write([twice], { operands: [[0n, A], [source, A]] })).toMatch(/the source of an operand is null/)
  expect(await write([twice], { operands: [[source + 8n, A], [source, A]] })).toMatch(/the source of an operand is none, or has been freed/)
  expect(await write([twice], { operands: [[source, A], [source, A]] })).toBe('written')
})

test('a header that is long is read in parts, which are the whole', async () => {
  const entries = Array.from({ length: 30_000 }, (_, i) => ({ name: `model.layers.${i}.\u00e9\n"\u{1f600}`, dtype: 'U8' as const, shape: i % 3 === 0 ? [] : [1, 1] }))
  const bytes = writeHeader(entries)
  let count = 0
  let parts = 0
  for await (const part of library.readHeader(bytes, bytes.length + entries.length)) {
    parts++
    for (const one of part) {
      const at = bytes.length + count
      expect(one).toEqual({ ...entries[count++], begin: at, end: at + 1 })
    }
  }
  expect([count, parts > 2]).toEqual([30_000, true])
})

test('handles that are none are refused everywhere, and freed twice without harm', async () => {
  const gone = freed('BF16', 6, 8)
  library.free(gone)
  library.free(0x1000n)
  for (const handle of [gone, 0x1000n, source]) {
    const bytes = new Uint8Array(96)
    const matrix = { bytes, dtype: 0, offset: 0, strides: [1, 1] as const }
    expect(() => library.figures(handle)).toThrow(/the tensor is none, or has been freed/)
    expect(() => library.addReplace(handle, 0)).toThrow(/the tensor is none, or has been freed/)
    expect(() => library.addDense(handle, 0, -1, 1)).toThrow(/the tensor is none, or has been freed/)
    expect(() => library.addProduct(handle, { left: matrix, right: matrix, rank: 1, scale: 1 })).toThrow(/the tensor is none, or has been freed/)
    expect(() => library.addDora(handle, { left: matrix, right: matrix, rank: 1, scale: 1 }, { bytes, dtype: 0 }, 0, 1)).toThrow(/the tensor is none, or has been freed/)
    expect(library.measures(handle)).toBe(false)
    await expect(library.measure(handle, 'scalar', 1, 0, 6, bytes)).rejects.toThrow(/the tensor is none, or has been freed/)
    await expect(library.merge(handle, 'scalar', 1, 'none', 0, 6, bytes, bytes)).rejects.toThrow(/the tensor is none, or has been freed/)
  }
  expect(await write([], { from: 0n })).toMatch(/the source is null/)
  expect(await write([], { from: gone })).toMatch(/the source is none, or has been freed/)
})

test('a tensor that is freed while it is merged is merged to the end, or not at all', async () => {
  const rows = 4000
  for (let delay = 0; delay < 10; delay++) {
    const w = new Uint8Array(rows * 512 * 4)
    const handle = tensor('F32', rows, 512)
    const merging = library.merge(handle, 'scalar', 2, 'all', 0, rows, w, w).then(() => 1, (error: Error) => {
      expect(error.message).toMatch(/the tensor is none, or has been freed/)
      return 0
    })
    if (delay > 0) await sleep(delay)
    library.free(handle)
    const expected = await merging
    expect(new Float32Array(w.buffer).every((value) => value === expected)).toBe(true)
  }
})

test('a source that became shorter is an error, whether its bytes are merged or copied', async () => {
  const shorter = join(folder, 'shorter')
  await writeFile(shorter, await readFile(path))
  const file = await open(shorter, 'r+')
  const from = library.openSource(file.fd)
  await file.truncate(A + 50)
  expect(await write([[MERGE, A, 0, 96, tensor('BF16', 6, 8)]], { from })).toMatch(/^the source ends before the tensor does: /)
  expect(await write([[COPY, BIAS, 0, 32]], { from })).toMatch(/^the source ends before the range does: /)
  // Nor are zeros left in a destination where nothing was.
  const fresh = await open(join(folder, 'fresh'), 'w+')
  await expect(library.writeSegments([{ source: from, destination: fresh.fd, segments: [0n, BigInt(BIAS), 0n, 32n, 0n, 0n] }], [], 'scalar', 1, 'none', new BigUint64Array(CONTROL_WORDS))).rejects.toThrow(/^the source ends before the range does: /)
  await fresh.close()
  library.freeSource(from)
  await file.close()
})

test('a hole of the source makes zeros of what the destination held', async () => {
  const [holes, held] = [join(folder, 'holes'), join(folder, 'held')]
  const length = 1 << 20
  // The hole begins with a block.
  const headed = writeHeader([{ name: 'a', dtype: 'U8', shape: [length] }], {}, 4096)
  const file = await open(holes, 'w+')
  await file.write(headed)
  await file.truncate(headed.length + length)
  const from = library.openSource(file.fd)
  await writeFile(held, Buffer.alloc(length, 1))
  const destination = await open(held, 'r+')
  await library.writeSegments([{ source: from, destination: destination.fd, segments: [0n, BigInt(headed.length), 0n, BigInt(length), 0n, 0n] }], [], 'scalar', 1, 'none', new BigUint64Array(CONTROL_WORDS))
  expect((await readFile(held)).equals(Buffer.alloc(length))).toBe(true)
  library.freeSource(from)
  await Promise.all([file.close(), destination.close()])
})

test('the control cancels before anything is done, counts what is done, and tells which output failed', async () => {
  const names = [join(folder, 'first'), join(folder, 'second')]
  for (const name of names) await writeFile(name, '')
  const [first, second] = [await open(names[0]!, 'r+'), await open(names[1]!, 'r')]
  const segments = [BigInt(MERGE), BigInt(A), 0n, 96n, tensor('BF16', 6, 8), 0n, BigInt(COPY), BigInt(BIAS), 96n, 32n, 0n, 0n]
  const control = new BigUint64Array(CONTROL_WORDS)
  const writeTo = (...files: { fd: number }[]) => library.writeSegments(files.map(({ fd }) => ({ source, destination: fd, segments })), [], 'scalar', 1, 'none', control)
  await writeTo(first)
  expect([control[CONTROL.bytesDone], (await readFile(names[0]!)).length]).toEqual([128n, 128])

  await first.truncate(0)
  await expect(writeTo(first, second)).rejects.toThrow(/writing the destination: Bad file descriptor/)
  expect([control[CONTROL.errorNumber], control[CONTROL.errorOutput]]).toEqual([9n, 1n])

  const ones = { bytes: new Uint8Array(new Float32Array(8).fill(1).buffer), dtype: 'F32' as const }
  const factor = { ...ones, offset: 0, strides: [1, 1] as const }
  const measuring = tensor('BF16', 6, 8, [{ kind: 'dora', axis: 'columns', weight: 1, left: factor, right: factor, rank: 1, scale: 1, magnitude: ones }])
  await first.truncate(0)
  control.fill(0n)
  control[CONTROL.cancel] = 1n
  await expect(writeTo(first)).rejects.toMatchObject({ status: 'cancelled' })
  segments[4] = measuring
  await expect(writeTo(first)).rejects.toMatchObject({ status: 'cancelled' })
  expect((await readFile(names[0]!)).length).toBe(0)
  // Nothing was measured either, so that row 0 is still next.
  await library.measure(measuring, 'scalar', 1, 0, 6, new Uint8Array(96))
  await Promise.all([first.close(), second.close()])
})

test('refuses two outputs into one file, and one into a source of another', async () => {
  const [one, two] = [join(folder, 'one'), join(folder, 'two')]
  for (const name of [one, two]) await writeFile(name, await readFile(path))
  const files = await Promise.all([open(one, 'r+'), open(two, 'r+'), open(one, 'r+')])
  const from = library.openSource(files[1]!.fd)
  const segments = [0n, BigInt(A), 0n, 8n, 0n, 0n]
  const write = (outputs: { source: SourceHandle; destination: number }[]) => library.writeSegments(outputs.map((output) => ({ ...output, segments })), [], 'scalar', 1, 'all', new BigUint64Array(CONTROL_WORDS))
  await expect(write([{ source, destination: files[0]!.fd }, { source, destination: files[2]!.fd }])).rejects.toThrow(/two destinations are the same file/)
  await expect(write([{ source, destination: files[1]!.fd }, { source: from, destination: files[0]!.fd }])).rejects.toThrow(/a source and the destination are the same file/)
  await expect(write([{ source, destination: -1 }])).rejects.toThrow(/the destination: Bad file descriptor/)
  await write([{ source, destination: files[0]!.fd }])
  library.freeSource(from)
  await Promise.all(files.map((file) => file.close()))
})

test('refuses the source as destination, no threads and too many', async () => {
  expect(await write([[COPY, A, A, 8]], { destination: path })).toMatch(/a source and the destination are the same file/)
  expect(await write([[COPY, A, 0, 8]], { threads: 0 })).toMatch(/0 threads: 1 to 1024 are possible/)
  expect(await write([[COPY, A, 0, 8]], { threads: 2 ** 32 - 1 })).toMatch(/4294967295 threads/)
})

test('refuses a source that is no safetensors file, or no file', async () => {
  const unsound = join(folder, 'unsound')
  await writeFile(unsound, Buffer.concat([header, Buffer.alloc(SIZE - A + 1)]))
  const file = await open(unsound)
  expect(() => library.openSource(file.fd)).toThrow(/the tensors end at data byte 608, the file has 609/)
  await file.close()
  const directory = await open(folder)
  expect(() => library.openSource(directory.fd)).toThrow(/the source is not a regular file/)
  await directory.close()
  expect(() => library.openSource(-1)).toThrow(/the source: Bad file descriptor/)
})

