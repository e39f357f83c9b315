import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeHeader } from '../../patch/safetensors.ts'
import { openLibrary, type SourceHandle, type TensorHandle } from './library.ts'
import { packTensor } from './tensor-merge.ts'

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

function tensor(dtype: 'F32' | 'BF16' | 'F16', rows: number, cols: number): TensorHandle {
  const ones = (count: number) => ({ bytes: new Uint8Array(new Float32Array(count).fill(1).buffer), dtype: 'F32' as const, offset: 0, strides: [1, 1] as const })
  const made = packTensor(library, { dtype, rows, cols, contributions: [{ kind: 'product', left: ones(rows), right: ones(cols), rank: 1, scale: 1 }] })
  tensors.push(made)
  return made
}

type Row = readonly [kind: number, offset: number | bigint, at: number | bigint, length: number | bigint, tensor?: TensorHandle]

/** `written`, or the sentence of the refusal; a refusal must leave the destination as it was. */
async function write(rows: readonly Row[], { threads = 2, destination = join(folder, 'out') } = {}): Promise<string> {
  if (destination !== path) await writeFile(destination, 'untouched')
  const before = await readFile(destination)
  const file = await open(destination, 'r+')
  const words = BigUint64Array.from(rows.flatMap(([kind, offset, at, length, handle = 0n]) => [BigInt(kind), BigInt(offset), BigInt(at), BigInt(length), handle, 0n]))
  try {
    await library.writeSegments(source, file.fd, words, new BigUint64Array(0), 'scalar', threads, new BigUint64Array(3))
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
  ['no tensor', () => [[MERGE, A, 0, 96]], /segment 0 has no tensor/],
  ['a tensor of another size', () => [[MERGE, A, 0, 96, tensor('BF16', 5, 8)]], /segment 0 has 96 bytes, its tensor has 80/],
  ['another dtype', () => [[MERGE, A, 0, 96, tensor('F16', 6, 8)]], /the tensor "a" with another dtype than its BF16/],
  ['a dtype that nothing merges', () => [[MERGE, COUNTS, 0, 192, tensor('F32', 6, 8)]], /the tensor "counts" with another dtype than its I32/],
  ['rows of another length', () => [[MERGE, A, 0, 96, tensor('BF16', 4, 12)]], /rows of 12 elements from byte 0 of the tensor "a", which does not consist of such rows/],
  ['rows that are columns', () => [[MERGE, A, 0, 96, tensor('BF16', 8, 6)]], /does not consist of such rows/],
  ['half a row', () => [[MERGE, A + 8, 0, 32, tensor('BF16', 2, 8)]], /rows of 8 elements from byte 8 of the tensor "a"/],
  ['the end of one tensor and the start of the next', () => [[MERGE, A + 64, 0, 64, tensor('BF16', 4, 8)]], /not of one tensor/],
  ['the header', () => [[MERGE, A - 16, 0, 96, tensor('BF16', 6, 8)]], /not of one tensor/],
])('refuses %s, and writes nothing', async (_name, rows, sentence) => {
  expect(await write([...rows()])).toMatch(sentence)
})

test('refuses the source as destination, no threads and too many', async () => {
  expect(await write([[COPY, A, A, 8]], { destination: path })).toMatch(/the source and the destination are the same file/)
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

