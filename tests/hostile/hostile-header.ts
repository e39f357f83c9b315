import fc from 'fast-check'
import { DTYPE_BITS, type Dtype } from '../../patch/dtype.ts'

/** The first bytes of a file, its header at least where there is one, and how long the file is. */
export interface FileStart {
  readonly bytes: Uint8Array
  readonly fileSize: number
}

/** A file with this header and `dataLength` bytes behind it. `claimed` is the header's length in the prefix. */
export function fileStart(json: string | Uint8Array, dataLength: number, claimed?: bigint): FileStart {
  const body = typeof json === 'string' ? Buffer.from(json) : json
  const bytes = new Uint8Array(8 + body.byteLength)
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(body.byteLength), true)
  bytes.set(body, 8)
  return { bytes, fileSize: bytes.byteLength + dataLength }
}

/** Mostly the first, sometimes one of the others: a header with one wrong thing gets further than one with ten. */
const mostly = <T>(usual: fc.Arbitrary<T>, ...odd: fc.Arbitrary<T>[]) => fc.oneof({ weight: 30 * odd.length, arbitrary: usual }, ...odd.map((arbitrary) => ({ weight: 1, arbitrary })))

const space = mostly(fc.constant(''), fc.constantFrom(' ', '\n', '\t\r', '  '), fc.constantFrom('\v', '\u00a0', '\f', '//', '\0'))
const name = mostly(
  fc.constantFrom('a', 'b', 'lm_head.weight', 'model.layers.0.q_proj.weight'),
  fc.string({ unit: 'grapheme', maxLength: 6 }), fc.string({ unit: 'binary', maxLength: 6 }),
  fc.constantFrom('', '__proto__', 'constructor', '__metadata__', '\u0000', 'x'.repeat(1024), 'x'.repeat(1025), '😀'.repeat(512), '😀'.repeat(513)),
)
/** The text of a string: as JSON.stringify has it, or with some characters escaped, or not a string at all. */
const literal = (text: string): fc.Arbitrary<string> => mostly(
  fc.constant(JSON.stringify(text)),
  fc.constant(`"${[...text].map((c) => [...Array(c.length).keys()].map((i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, '0')}`).join('')).join('')}"`),
  fc.constantFrom(`"${text}\\/"`, `"${text}\\ud800"`, `"${text}\\udc00\\ud800"`, `"\\u00g0${text}"`, `"\\x${text}"`, `'${text}'`, `"${text}`, `"${text}\n"`, 'null', '7'),
)
const numberText = (value: number): fc.Arbitrary<string> => mostly(
  fc.constant(String(value)),
  fc.constantFrom(`${value}.0`, `${value}e0`, `-${value}`, `0${value}`, `+${value}`, `${value}1`, `"${value}"`, '9007199254740991', '9007199254740992', '18446744073709551616', '1e999', '[]', 'null', `0x${value}`, ''),
)
const array = (values: readonly number[]): fc.Arbitrary<string> => fc.tuple(fc.tuple(...values.map(numberText)), space, fc.constantFrom('[]', '{}', 'null', '[[1]]', '[1,]', '[,1]', '[1 2]', '[1'), fc.nat(60))
  .map(([parts, gap, odd, at]) => (at === 0 ? odd : `[${gap}${parts.join(`${gap},${gap}`)}${gap}]`))

interface Tensor { readonly name: string; readonly dtype: Dtype; readonly shape: readonly number[]; readonly shift: readonly [number, number]; readonly gap: number }
const tensor: fc.Arbitrary<Tensor> = fc.record({
  name,
  dtype: fc.constantFrom(...(Object.keys(DTYPE_BITS) as Dtype[])),
  shape: mostly(fc.array(fc.nat(5), { maxLength: 4 }), fc.constantFrom([2 ** 32, 2 ** 32], [2 ** 53 - 1, 0, 2 ** 53 - 1], Array(16).fill(1), Array(17).fill(1), [2 ** 50], [3037000500, 3037000500])),
  gap: mostly(fc.constant(0), fc.integer({ min: -3, max: 3 })),
  shift: mostly(fc.constant<[number, number]>([0, 0]), fc.tuple(fc.integer({ min: -4, max: 4 }), fc.integer({ min: -4, max: 4 }))),
})

function entry({ name: title, dtype, shape }: Tensor, begin: number, end: number): fc.Arbitrary<string> {
  const keys = fc.tuple(
    fc.tuple(mostly(literal('dtype'), fc.constant('"d\\u0074ype"')), mostly(literal(dtype), literal('F33'), literal('toString'))),
    fc.tuple(literal('shape'), array(shape)),
    fc.tuple(literal('data_offsets'), array([begin, end])),
  )
  const body = fc.tuple(keys, space, mostly<readonly number[]>(fc.constant([0, 1, 2]), fc.shuffledSubarray([0, 1, 2], { minLength: 3 }), fc.shuffledSubarray([0, 1, 2]), fc.constantFrom([0, 1, 2, 0], [0, 1, 2, 1], [2, 0, 1, 2])), mostly(fc.constant(''), fc.constantFrom(',"x":1', ',', ',"__proto__":{}')))
    .map(([pairs, gap, order, more]) => `{${order.map((at) => `${gap}${pairs[at]![0]}${gap}:${gap}${pairs[at]![1]}`).join(',')}${more}${gap}}`)
  return fc.tuple(literal(title), space, mostly(body, fc.constantFrom('null', '[]', '1', '{}', '"x"', '{"x":'.repeat(40), '['.repeat(100)))).map(([key, gap, value]) => `${key}${gap}:${gap}${value}`)
}

const metadata = mostly(
  fc.constant<string[]>([]),
  fc.constantFrom(['"__metadata__":{"format":"pt"}'], ['"__metadata__":null'], ['"__metadata__":{}'], ['"__metadata__":{"a":"1","a":"2"}'], ['"__metadata__":{"a":1}'], ['"__metadata__":[]'], ['"__metadata__":{}', '"__metadata__":{}'], ['"__metadata__":{"__proto__":"x","\\u0062":"\\ud83d\\ude00"}'], ['"__metadata__":{"\\udc00":""}']),
)

/** What looks like UTF-8 and is none (overlong, half a surrogate pair, beyond the last character, cut off), and what is. */
export const ODD_BYTES = [[0xc0, 0x80], [0xe0, 0x80, 0x80], [0xe0, 0x9f, 0xbf], [0xed, 0xa0, 0x80], [0xed, 0x9f, 0xbf], [0xf0, 0x80, 0x80, 0x80], [0xf0, 0x8f, 0xbf, 0xbf], [0xf4, 0x90, 0x80, 0x80], [0xf4, 0x8f, 0xbf, 0xbf], [0xf5, 0x80, 0x80, 0x80], [0xc3], [0xe2, 0x82], [0xf0, 0x9f, 0x98], [0x80], [0xff], [0xef, 0xbb, 0xbf], [0xef, 0xbf, 0xbe], [0xc3, 0xa9]]

/** Headers that are sound, or nearly so: structured first, then cut, lengthened, or with bytes of theirs changed. */
export const hostileHeader: fc.Arbitrary<FileStart> = fc.array(tensor, { maxLength: 5 }).chain((tensors) => {
  let at = 0
  const entries = tensors.map((one) => {
    const begin = (at = Math.max(0, at + one.gap))
    at += Math.ceil(one.shape.reduce((product, size) => product * size, 1) * DTYPE_BITS[one.dtype] / 8)
    return entry(one, Math.abs(begin + one.shift[0]), Math.abs(at + one.shift[1]))
  })
  const size = Number.isSafeInteger(at) ? at : 8
  return fc.tuple(fc.tuple(...entries), metadata, fc.boolean(), space, mostly(fc.constant(''), fc.constantFrom('x', '}', '{}', '\0', '       ')), mostly(fc.constant(0), fc.integer({ min: -8, max: 8 })), mostly(fc.constant<bigint | undefined>(undefined), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 300n })), mostly(fc.constant<[number, number][]>([]), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 })), mostly(fc.constant(-1), fc.nat(200)), mostly(fc.constant<[number, number[]]>([0, []]), fc.tuple(fc.nat(), fc.constantFrom(...ODD_BYTES))))
    .map(([texts, more, isFirst, gap, tail, surplus, claimed, flips, cut, [where, odd]]) => {
      const json = `{${gap}${(isFirst ? [...more, ...texts] : [...texts, ...more]).join(`${gap},`)}${gap}}${tail}`
      const whole = [...Buffer.from(json).subarray(0, cut === -1 ? undefined : cut)]
      // Behind a quote, where it is part of a string as often as not.
      const quotes = whole.flatMap((byte, position) => (byte === 0x22 ? [position + 1] : []))
      const body = Uint8Array.from(whole.toSpliced(quotes[where % quotes.length] ?? 0, 0, ...odd))
      for (const [position, byte] of flips) if (body.byteLength > 0) body[position % body.byteLength] = byte
      return fileStart(body, Math.max(0, size + surplus), claimed)
    })
})
