import fc from 'fast-check'
import { random } from '../../gpu-runner/core/random-merge.ts'
import { readCorpus } from './fuzz-target.ts'
import { hostileHeader } from './hostile-header.ts'
import { malformedAdapters, malformedModels, malformedPatches, modelOf, SOUND_MODEL, SOUND_PATCH, type Files, type Malformed } from './malformed-folders.ts'
import { FAMILIES } from './malformed-safetensors.ts'

export interface Upload {
  /** What is wrong with it. */
  readonly name: string
  readonly subject: 'model' | 'patch'
  readonly files: Files
  /** Code of the finding that must be among the reasons; null where an oracle has to say whether it is sound. */
  readonly expected: RegExp | null
  /** What was said of a file before it was uploaded, where that is not so. */
  readonly declared?: Readonly<Record<string, { readonly size?: number; readonly sha256?: string }>>
}

/** How many sound ones come first. */
export const SOUND_UPLOADS = 2
const SEED = 20261125
const PER_FAMILY = 14
const PER_KIND_OF_ADAPTER = 20
const HOSTILE_HEADERS = 300

/** Sound ones first, then the malformed, the same each time; each is made when it is asked for, since some are large. */
export async function* malformedUploads(): AsyncGenerator<Upload> {
  yield { name: 'the sound model', subject: 'model', files: SOUND_MODEL, expected: null }
  yield { name: 'the sound patch', subject: 'patch', files: SOUND_PATCH, expected: null }
  const next = random(SEED)
  for (const [name, { expected, make }] of Object.entries(FAMILIES)) {
    for (let i = 0; i < PER_FAMILY; i++) yield { name: `${name} (${i})`, subject: 'model', files: modelOf(make(next)), expected }
  }
  for (const [i, { bytes, fileSize }] of fc.sample(hostileHeader, { numRuns: HOSTILE_HEADERS, seed: SEED }).entries()) {
    yield { name: `hostile header ${i}`, subject: 'model', files: modelOf(padded(bytes, fileSize)), expected: null }
  }
  for (const [i, input] of (await readCorpus('header')).entries()) {
    if (input.length >= 3) yield { name: `corpus of the fuzz target "header", line ${i + 1}`, subject: 'model', files: modelOf(fileOfInput(input)), expected: null }
  }
  yield* as('patch', malformedAdapters(PER_KIND_OF_ADAPTER, SEED))
  yield* as('patch', malformedPatches())
  yield* as('model', malformedModels())
  for (const [name, make] of HEAVY) yield* as('model', [[name, modelOf(make()), /^(safetensors-|non-finite)/]])
  yield { name: 'another digest than was declared', subject: 'model', files: SOUND_MODEL, expected: /^digest-mismatch$/, declared: { 'model.safetensors': { sha256: '0'.repeat(64) } } }
  for (const size of [0, 7, 100, 2 ** 31, Number.MAX_SAFE_INTEGER]) {
    yield { name: `another size than was declared: ${size}`, subject: 'model', files: SOUND_MODEL, expected: /^size-mismatch$/, declared: { 'model.safetensors': { size } } }
  }
}

function* as(subject: Upload['subject'], all: readonly Malformed[]): Generator<Upload> {
  for (const [name, files, expected] of all) yield { name, subject, files, expected }
}

/** With as many zeros as the file has bytes more, or some of them. */
function padded(bytes: Uint8Array, size: number): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(Math.min(2 ** 16, size - bytes.byteLength))])
}

/** As header.cpp reads it: flags, two bytes of data length, then the JSON, with its prefix where flag 1 is set. */
function fileOfInput(input: Buffer): Buffer {
  const body = input.subarray(3)
  const prefix = Buffer.alloc(input[0]! & 1 ? 0 : 8)
  if (prefix.length > 0) prefix.writeBigUInt64LE(BigInt(body.length))
  return Buffer.concat([prefix, body, Buffer.alloc(input.readUInt16LE(1))])
}

function withHeader(json: Buffer | string, data = 0): Buffer {
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([prefix, Buffer.from(json), Buffer.alloc(data)])
}

/** Longest header that is read. */
const MOST = 16 << 20
const names = (count: number, length: number) => Array.from({ length: count }, (_, i) => String(i).padStart(length, 'n'))
const bytesOf = (all: readonly string[], data: number) => withHeader(`{${all.map((name, i) => `"${name}":{"dtype":"F32","shape":[1],"data_offsets":[${4 * i},${4 * i + 4}]}`)}}`, data)

/** As large as is read at all, or just larger. */
const HEAVY: readonly (readonly [string, () => Buffer])[] = [
  ['16 MiB of brackets', () => withHeader(Buffer.concat([Buffer.from('{"a":'), Buffer.alloc(MOST - 5, '[')]))],
  ['16 MiB of objects', () => withHeader('{"a":'.repeat(MOST / 5))],
  ['a name of 16 MiB', () => withHeader(Buffer.concat([Buffer.from('{"'), Buffer.alloc(MOST - 4, 'x'), Buffer.from('"}')]))],
  ['16 MiB of escapes', () => withHeader(Buffer.concat([Buffer.from('{"'), Buffer.alloc(MOST - 4, '\\u0061'), Buffer.from('"}')]))],
  ['a value of metadata of 16 MiB, not ended', () => withHeader(Buffer.concat([Buffer.from('{"__metadata__":{"a":"'), Buffer.alloc(MOST - 22, 'x')]))],
  ['metadata of 100,001 entries', () => withHeader(`{"__metadata__":{${names(100_001, 60).map((name) => `"${name}":"${name}"`)}}}`)],
  ['16 MiB of space, then no JSON', () => withHeader(Buffer.concat([Buffer.from('{'), Buffer.alloc(MOST - 2, ' '), Buffer.from('x')]))],
  ['more than 16 MiB', () => withHeader(Buffer.concat([Buffer.from('{}'), Buffer.alloc(MOST, ' ')]))],
  ['100,001 tensors', () => bytesOf(names(100_001, 8), 400_004)],
  ['100,000 tensors, the last cut off', () => bytesOf(names(100_000, 8), 399_999)],
  ['100,000 tensors with long names, the last cut off', () => bytesOf(names(100_000, 90), 399_999)],
  ['one number in a shape of 16 MiB', () => withHeader(`{"a":{"dtype":"U8","shape":[${'1'.repeat(MOST - 40)}`)],
  ['a shape of 16 MiB', () => withHeader(`{"a":{"dtype":"U8","shape":[${'1,'.repeat(MOST / 2 - 20)}`)],
  ['a NaN behind 100,000 tensors', () => {
    const whole = bytesOf(names(100_000, 90), 400_000)
    whole.set([0, 0, 0xc0, 0x7f], whole.length - 4)
    return whole
  }],
  ['16 MiB of NaN', () => {
    const whole = withHeader(`{"a":{"dtype":"BF16","shape":[${MOST / 2}],"data_offsets":[0,${MOST}]}}`, MOST)
    whole.fill(0xff, whole.length - MOST)
    return whole
  }],
]
