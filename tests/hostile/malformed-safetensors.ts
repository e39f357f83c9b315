import { DTYPE_BITS, type Dtype } from '../../patch/dtype.ts'
import { fileStart, ODD_BYTES } from './hostile-header.ts'

interface Entry {
  readonly name: string
  readonly dtype: string
  /** As text, since no number of JavaScript is as wrong as a text can be. */
  readonly shape: readonly string[]
  readonly begin: number
  readonly end: number
}

/** Numbers from 0 to below 1. */
export type Next = () => number

export interface Family {
  /** Code of the finding that must be among the reasons. */
  readonly expected: RegExp
  readonly make: (next: Next) => Buffer
}

const below = (next: Next, count: number) => Math.floor(next() * count)
const pick = <T>(next: Next, list: readonly T[]): T => list[below(next, list.length)]!

/** One to five tensors with data, end to end. */
function sound(next: Next): Entry[] {
  let at = 0
  return Array.from({ length: 1 + below(next, 5) }, (_, i) => {
    const dtype = pick(next, ['F32', 'BF16', 'F16', 'F64', 'U8', 'I64', 'F8_E4M3', 'BOOL'] as const satisfies readonly Dtype[])
    const shape = Array.from({ length: 1 + below(next, 3) }, () => 1 + below(next, 5))
    const begin = at
    at += shape.reduce((product, size) => product * size, 1) * DTYPE_BITS[dtype] / 8
    return { name: `model.layers.${i}.weight`, dtype, shape: shape.map(String), begin, end: at }
  })
}

const dataLength = (entries: readonly Entry[]) => Math.max(...entries.map(({ end }) => end))

function entryText({ name, dtype, shape, begin, end }: Entry): string {
  return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${begin},${end}]}`
}

const headerText = (entries: readonly Entry[]) => `{${entries.map(entryText).join(',')}}`

/** A whole file with this header; its data are zeros. */
function file(header: string | Uint8Array, length: number, claimed?: bigint): Buffer {
  const { bytes, fileSize } = fileStart(header, length, claimed)
  return Buffer.concat([bytes, Buffer.alloc(fileSize - bytes.byteLength)])
}

function soundFile(next: Next): Buffer {
  const entries = sound(next)
  return file(headerText(entries), dataLength(entries))
}

/** A sound file whose header has one piece of its text replaced. */
function changed(next: Next, from: RegExp, to: (found: string) => string): Buffer {
  const entries = sound(next)
  const text = headerText(entries)
  const at = pick(next, [...text.matchAll(from)])
  return file(text.slice(0, at.index) + to(at[0]) + text.slice(at.index + at[0].length), dataLength(entries))
}

/** The entries with other names, one behind the other. */
function endToEnd(entries: readonly Entry[]): Entry[] {
  let at = 0
  return entries.map((entry, i) => {
    const begin = at
    at += entry.end - entry.begin
    return { ...entry, name: `model.part${i}.weight`, begin, end: at }
  })
}

/** Entries from `first` on moved by `by` bytes. */
const moved = (entries: readonly Entry[], first: number, by: number) => entries.map((entry, i) => (i < first ? entry : { ...entry, begin: entry.begin + by, end: entry.end + by }))

/** One element of a float tensor, as stored, that is no finite number. */
const NOT_FINITE: readonly (readonly [Dtype, readonly number[]])[] = [
  ['F32', [0, 0, 0xc0, 0x7f]], ['F32', [0, 0, 0x80, 0xff]], ['BF16', [0x80, 0x7f]], ['BF16', [0x81, 0xff]], ['F16', [0, 0x7c]], ['F16', [1, 0xfc]],
  ['F64', [0, 0, 0, 0, 0, 0, 0xf0, 0x7f]], ['F64', [1, 0, 0, 0, 0, 0, 0xf0, 0xff]], ['F8_E4M3', [0x7f]], ['F8_E4M3', [0xff]], ['F8_E5M2', [0x7c]], ['F8_E5M2', [0xfe]], ['F8_E8M0', [0xff]],
]

/** Each makes one thing of a sound file wrong, so that it can never be right to accept the outcome. */
export const FAMILIES: Readonly<Record<string, Family>> = {
  'a header that goes on beyond the file': { expected: /^safetensors-(truncated|header-too-large)$/, make: (next) => {
    const entries = sound(next)
    const [text, length] = [headerText(entries), dataLength(entries)]
    return file(text, length, pick(next, [BigInt(text.length + length + 1 + below(next, 1000)), 2n ** 24n + 1n, 2n ** 31n, 2n ** 32n + BigInt(text.length), 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 8n]))
  } },
  'a header that claims less than it has': { expected: /^safetensors-not-json$/, make: (next) => {
    const entries = sound(next)
    const text = headerText(entries)
    return file(text, dataLength(entries), BigInt(below(next, text.length)))
  } },
  'a file cut off': { expected: /^safetensors-truncated$/, make: (next) => {
    const whole = soundFile(next)
    return whole.subarray(0, below(next, whole.length))
  } },
  'bytes behind the last tensor': { expected: /^safetensors-trailing-bytes$/, make: (next) => Buffer.concat([soundFile(next), Buffer.alloc(1 + below(next, 5000))]) },
  'a shape whose product wraps around': { expected: /^safetensors-(shape-overflow|bad-shape)$/, make: (next) => {
    const shape = pick(next, [['4294967296', '4294967296'], ['2147483648', '8589934592', '1'], ['9007199254740991', '9007199254740991'], ['18446744073709551616'], ['4294967296', '4294967296', '0'], ['3', '6148914691236517205']])
    return file(headerText([{ name: 'w', dtype: pick(next, ['U8', 'F32', 'F64']), shape, begin: 0, end: 0 }, ...sound(next)]), 0)
  } },
  'offsets that are not shape times dtype': { expected: /^safetensors-size-mismatch$/, make: (next) => {
    const entries = sound(next)
    const at = below(next, entries.length)
    const by = pick(next, [1, 2, 7, 64, -1])
    const wrong = moved(entries, at + 1, by).map((entry, i) => (i === at ? { ...entry, end: entry.end + by } : entry))
    return file(headerText(wrong), dataLength(wrong))
  } },
  'tensors that overlap': { expected: /^safetensors-overlap$/, make: (next) => {
    const entries = endToEnd([...sound(next), ...sound(next)])
    const at = 1 + below(next, entries.length - 1)
    const wrong = moved(entries, at, -1 - below(next, entries[at - 1]!.end - entries[at - 1]!.begin))
    return file(headerText(wrong), dataLength(wrong))
  } },
  'a hole between tensors, or before the first': { expected: /^safetensors-hole$/, make: (next) => {
    const entries = sound(next)
    const wrong = moved(entries, below(next, entries.length), 1 + below(next, 100))
    return file(headerText(wrong), dataLength(wrong))
  } },
  'one range for two tensors': { expected: /^safetensors-overlap$/, make: (next) => {
    const entries = sound(next)
    return file(headerText([...entries, { ...pick(next, entries), name: 'again' }]), dataLength(entries))
  } },
  'offsets the wrong way round': { expected: /^safetensors-bad-offsets$/, make: (next) => changed(next, /"data_offsets":\[(\d+),(\d+)\]/g, (found) => found.replace(/(\d+),(\d+)/, '$2,$1')) },
  'a number below zero': { expected: /^safetensors-bad-(shape|offsets)$/, make: (next) => changed(next, /(?<=[[,])\d+/g, (found) => `-${found === '0' ? '0' : found}`) },
  'a number that is no integer': { expected: /^safetensors-(bad-shape|bad-offsets|not-json)$/, make: (next) => changed(next, /(?<=[[,])\d+/g, (found) => pick(next, [`${found}.0`, `${found}e0`, `0${found}`, `+${found}`, `"${found}"`, `0x${found}`, 'null', 'true', 'NaN', 'Infinity', '[]', '{}', `${found} ${found}`])) },
  'a number beyond 2^53': { expected: /^safetensors-bad-(shape|offsets)$/, make: (next) => changed(next, /(?<=[[,])\d+/g, () => pick(next, ['9007199254740992', '18446744073709551615', '18446744073709551616', '1'.repeat(400)])) },
  'a name twice': { expected: /^safetensors-duplicate-key$/, make: (next) => {
    const entries = sound(next)
    const twice = entryText(entries[0]!).replace('"model', pick(next, ['"model', '"m\\u006fdel', '"\\u006Dodel']))
    return file(`{${[...entries.map(entryText), twice].join(',')}}`, dataLength(entries))
  } },
  'a key twice in a tensor': { expected: /^safetensors-duplicate-key$/, make: (next) => changed(next, /"dtype":"\w+"|"shape":\[[\d,]+\]|"data_offsets":\[[\d,]+\]/g, (found) => `${found},${pick(next, [found, found.replace('"d', '"\\u0064')])}`) },
  'a key missing': { expected: /^safetensors-(bad-shape|bad-offsets|unknown-dtype)$/, make: (next) => changed(next, /"dtype":"\w+",|"shape":\[[\d,]+\],|,"data_offsets":\[[\d,]+\]/g, () => '') },
  'a key too many': { expected: /^safetensors-bad-structure$/, make: (next) => changed(next, /"dtype"/g, (found) => `${pick(next, ['"__proto__":{"shape":[9]}', '"constructor":1', '"offset":0', '"":null', '"Dtype":"F32"', '"DTYPE":[]'])},${found}`) },
  'an unknown dtype': { expected: /^safetensors-unknown-dtype$/, make: (next) => changed(next, /(?<="dtype":)"\w+"/g, () => pick(next, ['"F33"', '"f32"', '"BF16 "', '""', '"toString"', '"__proto__"', '"hasOwnProperty"', 'null', '32', '["F32"]', '{"F32":1}', '"FLOAT"', '"NaN"'])) },
  'metadata that are no strings': { expected: /^safetensors-(bad-metadata|duplicate-key|not-json)$/, make: (next) => changed(next, /^\{/g, () => `{"__metadata__":${pick(next, ['{"a":1}', '[]', '"pt"', '1', '{"a":null}', '{"a":{"b":"c"}}', '{"a":["b"]}', '{"a":"1","a":"2"}', '{"a":true}', '{"a"}', '{"a":}'])},`) },
  'bytes that are no UTF-8': { expected: /^safetensors-bad-utf8$/, make: (next) => {
    const entries = sound(next)
    const odd = pick(next, ODD_BYTES.filter((bytes) => !Buffer.from(bytes).equals(Buffer.from(Buffer.from(bytes).toString()))))
    return file(Buffer.concat([Buffer.from('{"'), Uint8Array.from(odd), Buffer.from(headerText(entries).slice(2))]), dataLength(entries))
  } },
  'half a surrogate pair': { expected: /^safetensors-bad-utf8$/, make: (next) => changed(next, /model/g, (found) => `${pick(next, ['\\ud800', '\\udfff', '\\udc00\\ud800', '\\uD83D'])}${found}`) },
  'a control character in a string': { expected: /^safetensors-not-json$/, make: (next) => changed(next, /model/g, (found) => found + String.fromCharCode(below(next, 32))) },
  'an escape that is none': { expected: /^safetensors-not-json$/, make: (next) => changed(next, /model/g, (found) => found + pick(next, ['\\x41', '\\u12', '\\u00g0', '\\a', "\\'", '\\'])) },
  'a header that is no object': { expected: /^safetensors-(not-json|bad-structure)$/, make: (next) => file(pick(next, ['', '[]', 'null', '"x"', '1', '{', '}', ' {}', '\n{}', '\ufeff{}', '[{}]', 'true', '{]', '{"a"', '{"a":', '{"a":{', '\0{}', '{}{}', '{"a":[]}', '{"a":null}']), 0) },
  'nearly JSON': { expected: /^safetensors-(not-json|bad-structure|unknown-dtype|bad-shape|bad-offsets|size-mismatch)$/, make: (next) => changed(next, /[{}[\],:"]/g, (found) => pick(next, ['', `${found}${found}`, "'", '//', ';', `${found},`, '\u00a0'].filter((other) => !(found === '"' && other === '",')))) },
  'brackets without end': { expected: /^safetensors-/, make: (next) => file(pick(next, ['{"a":', '[', '{"__metadata__":{"a":', '{"a":{"shape":[', '{"a":[']).repeat(1 + below(next, 20_000)), 8) },
  'text behind the header': { expected: /^safetensors-not-json$/, make: (next) => changed(next, /\}$/g, (found) => found + pick(next, ['}', 'x', '{}', '\0', ',', '  ,  ', '\u00a0', '\v'])) },
  'elements that do not fill bytes': { expected: /^safetensors-bad-shape$/, make: (next) => {
    const count = 1 + 2 * below(next, 20)
    return file(headerText([{ name: 'w', dtype: pick(next, ['F4', 'F6_E2M3', 'F6_E3M2']), shape: [String(count)], begin: 0, end: count }]), count)
  } },
  'more dimensions than a tensor has': { expected: /^safetensors-bad-shape$/, make: (next) => file(headerText([{ name: 'w', dtype: 'U8', shape: Array(17 + below(next, 5000)).fill('1') as string[], begin: 0, end: 1 }]), 1) },
  'a name of no or of too many characters': { expected: /^safetensors-bad-name$/, make: (next) => file(headerText([{ name: pick(next, ['', 'x'.repeat(1025), '\u{1f600}'.repeat(600), '\u00e9'.repeat(2000)]), dtype: 'U8', shape: ['1'], begin: 0, end: 1 }]), 1) },
  'a value that is NaN or infinite': { expected: /^non-finite$/, make: (next) => {
    const [dtype, element] = pick(next, NOT_FINITE)
    const count = 1 + below(next, 40)
    const entry = { name: 'w', dtype, shape: [String(count)], begin: 0, end: count * element.length }
    const whole = file(headerText([entry]), entry.end)
    whole.set(element, whole.length - element.length * (1 + below(next, count)))
    return whole
  } },
}
