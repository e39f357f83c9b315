import fc from 'fast-check'
import { expect, test } from 'vitest'
import { CoreError, openLibrary } from '../../gpu-runner/core/library.ts'
import { DTYPE_BITS, isDtype } from '../../patch/dtype.ts'
import { parseHeader, RUNNER_HEADER_CAP, SafetensorsError, type TensorInfo } from '../../patch/safetensors.ts'
import { DuplicateKeyError, parseStrictJson } from '../../patch/strict-json.ts'
import { fileStart, hostileHeader, ODD_BYTES, type FileStart } from './hostile-header.ts'

const library = await openLibrary()

/** Tensors with offsets from the start of the file, in the order of their names; null where the header is refused. */
type Reading = readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[]; readonly begin: number; readonly end: number }[] | null

const inOrder = (reading: NonNullable<Reading>): Reading => reading.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(({ name, dtype, shape, begin, end }) => ({ name, dtype, shape: [...shape], begin, end }))

function readInTypeScript({ bytes, fileSize }: FileStart): Reading {
  try {
    const { tensors, dataOffset } = parseHeader(bytes, fileSize)
    return inOrder(tensors.map((tensor) => ({ ...tensor, begin: dataOffset + tensor.begin, end: dataOffset + tensor.end })))
  } catch (error) {
    if (error instanceof SafetensorsError) return null
    throw error
  }
}

async function readInCore({ bytes, fileSize }: FileStart): Promise<Reading> {
  try {
    const tensors: TensorInfo[] = []
    for await (const part of library.readHeader(bytes, fileSize)) tensors.push(...part)
    return inOrder(tensors)
  } catch (error) {
    if (!(error instanceof CoreError) || error.status !== 'invalid') throw error
    expect(error.message).toMatch(/^[\x20-\x7e\u0080-\u{10ffff}]{10,}$/u)
    return null
  }
}

/** A third reading, by JSON.parse: the header is small, and its author trusted not to be clever. */
function readPlainly({ bytes, fileSize }: FileStart): Reading {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.byteLength < 8 || fileSize < 8) return null
  const length = view.getBigUint64(0, true)
  if (length > RUNNER_HEADER_CAP || 8 + Number(length) > Math.min(fileSize, bytes.byteLength)) return null
  const start = 8 + Number(length)
  let text: string
  let root: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, start))
    root = parseStrictJson(text)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError || error instanceof DuplicateKeyError) return null
    throw error
  }
  // Numbers and escapes as written, which JSON.parse does not show.
  const outside = text.replace(/"(\\.|[^"\\])*"/gs, '""')
  if (!text.startsWith('{') || /[.eE]/.test(outside.replaceAll(/null|true|false/g, '')) || JSON.stringify(root).match(/(?<!\\)(\\\\)*\\ud[89a-f]/)) return null
  const reading: NonNullable<Reading>[number][] = []
  for (const [name, value] of Object.entries(root as object)) {
    if (name === '__metadata__') {
      if (value !== null && (typeof value !== 'object' || Array.isArray(value) || Object.values(value).some((text) => typeof text !== 'string'))) return null
      continue
    }
    const { dtype, shape, data_offsets: offsets, ...more } = (value ?? {}) as Record<string, unknown>
    const isCounts = (list: unknown): list is number[] => Array.isArray(list) && list.every((count) => Number.isSafeInteger(count) && count >= 0 && !Object.is(count, -0))
    if (name === '' || name.length > 1024 || Object.keys(more).length > 0 || typeof dtype !== 'string' || !isDtype(dtype)) return null
    if (!isCounts(shape) || shape.length > 16 || !isCounts(offsets) || offsets.length !== 2) return null
    // Exactly, with the product checked at each step.
    let bits = 1n
    for (const size of shape) if ((bits *= BigInt(size)) >= 2n ** 53n) return null
    bits *= BigInt(DTYPE_BITS[dtype])
    const [begin, end] = offsets as [number, number]
    if (bits >= 2n ** 53n || bits !== 8n * BigInt(end - begin) || begin > end) return null
    reading.push({ name, dtype, shape, begin: start + begin, end: start + end })
  }
  // Every byte of the data belongs to one tensor, and empty ones lie between the others.
  const sorted = reading.toSorted((a, b) => a.begin - b.begin || a.end - b.end)
  if (sorted.some(({ begin }, at) => begin !== (sorted[at - 1]?.end ?? start)) || (sorted.at(-1)?.end ?? start) !== fileSize) return null
  return inOrder(reading)
}

async function readAll(start: FileStart): Promise<Reading> {
  const reading = readInTypeScript(start)
  const shown = () => JSON.stringify({ text: Buffer.from(start.bytes).toString('latin1'), fileSize: start.fileSize })
  expect(await readInCore(start), `core: ${shown()}`).toEqual(reading)
  expect(readPlainly(start), `plainly: ${shown()}`).toEqual(reading)
  return reading
}

test('10,000 headers, sound or with something wrong, are read alike by TypeScript, the core and JSON.parse', async () => {
  let accepted = 0
  for (const start of fc.sample(hostileHeader, { numRuns: 10_000, seed: 20261125 })) {
    if ((await readAll(start)) !== null) accepted++
  }
  expect(accepted).toBeGreaterThan(2000)
  expect(accepted).toBeLessThan(8000)
})

test('a sound header, with each of its bytes changed, left out or doubled, and with odd ones between any two', async () => {
  const sound = Buffer.from('{"__metadata__":{"f\\u006f":"x"}, "a\\n\\ud83d\\ude00é":{"dtype":"BF16","shape":[2,10],"data_offsets":[0,40]},"b":{"data_offsets":[40,44],"dtype":"F32","shape":[]}} ')
  expect(await readAll(fileStart(sound, 44))).toHaveLength(2)
  for (let at = 0; at < sound.length; at++) {
    for (const byte of [0x00, 0x20, 0x22, 0x2c, 0x2d, 0x30, 0x39, 0x3a, 0x5b, 0x5c, 0x5d, 0x65, 0x75, 0x7b, 0x7d, 0x80, 0xc3, 0xed, 0xff]) {
      const changed = Buffer.from(sound)
      changed[at] = byte
      await readAll(fileStart(changed, 44))
    }
    for (const odd of ODD_BYTES) await readAll(fileStart(Buffer.concat([sound.subarray(0, at), Buffer.from(odd), sound.subarray(at)]), 44))
    await readAll(fileStart(Buffer.concat([sound.subarray(0, at), sound.subarray(at + 1)]), 44))
    await readAll(fileStart(Buffer.concat([sound.subarray(0, at + 1), sound.subarray(at)]), 44))
    await readAll(fileStart(sound.subarray(0, at), 44))
  }
})
