import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DTYPE_BITS, type Dtype } from './dtype.ts'
import { EDGE_HEADER_CAP, headerLength, parseHeader, SafetensorsError, writeHeader } from './safetensors.ts'

/** A file with this JSON as its header and `dataLength` bytes behind it, given as header bytes and size. */
function fileOf(json: string | Uint8Array, dataLength: number, claimed?: bigint): { bytes: Uint8Array; size: number } {
  const body = typeof json === 'string' ? new TextEncoder().encode(json) : json
  const bytes = new Uint8Array(8 + body.byteLength)
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(body.byteLength), true)
  bytes.set(body, 8)
  return { bytes, size: bytes.byteLength + dataLength }
}

function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof SafetensorsError) return error.code
    throw error
  }
  return 'accepted'
}

function parse(json: string | Uint8Array, dataLength: number): string {
  const { bytes, size } = fileOf(json, dataLength)
  return codeOf(() => parseHeader(bytes, size))
}

const F32 = '"dtype":"F32"'

describe('attacks on the header', () => {
  it.each<[string, string, string | Uint8Array, number]>([
    ['a hole at the start', 'hole', `{"a":{${F32},"shape":[1],"data_offsets":[4,8]}}`, 8],
    ['a hole in the middle', 'hole', `{"a":{${F32},"shape":[1],"data_offsets":[0,4]},"b":{${F32},"shape":[1],"data_offsets":[8,12]}}`, 12],
    ['an overlap', 'overlap', `{"a":{${F32},"shape":[2],"data_offsets":[0,8]},"b":{${F32},"shape":[1],"data_offsets":[4,8]}}`, 8],
    ['the same range twice', 'overlap', `{"a":{${F32},"shape":[1],"data_offsets":[0,4]},"b":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['an empty tensor inside another', 'overlap', `{"a":{${F32},"shape":[2],"data_offsets":[0,8]},"b":{${F32},"shape":[0],"data_offsets":[4,4]}}`, 8],
    ['a range that is not shape × dtype', 'size-mismatch', `{"a":{${F32},"shape":[3],"data_offsets":[0,4]}}`, 4],
    ['a product of shapes that overflows 64 bits', 'shape-overflow', `{"a":{${F32},"shape":[4294967296,4294967297],"data_offsets":[0,4]}}`, 4],
    ['a product of shapes that overflows and ends in zero', 'shape-overflow', `{"a":{${F32},"shape":[9007199254740991,9007199254740991,0],"data_offsets":[0,0]}}`, 0],
    ['a negative size', 'bad-shape', `{"a":{${F32},"shape":[-1],"data_offsets":[0,4]}}`, 4],
    ['minus zero', 'bad-shape', `{"a":{${F32},"shape":[-0],"data_offsets":[0,0]}}`, 0],
    ['a fraction', 'bad-shape', `{"a":{${F32},"shape":[1.5],"data_offsets":[0,6]}}`, 6],
    ['a number beyond 2^53', 'bad-shape', `{"a":{${F32},"shape":[1e300],"data_offsets":[0,4]}}`, 4],
    ['a whole number written as a fraction', 'bad-shape', `{"a":{${F32},"shape":[1.0],"data_offsets":[0,4]}}`, 4],
    ['a whole number written with an exponent', 'bad-offsets', `{"a":{${F32},"shape":[1],"data_offsets":[0,4e0]}}`, 4],
    ['a leading zero', 'bad-shape', `{"a":{${F32},"shape":[01],"data_offsets":[0,4]}}`, 4],
    ['17 dimensions', 'bad-shape', `{"a":{${F32},"shape":[${Array(17).fill(1)}],"data_offsets":[0,4]}}`, 4],
    ['an end before its begin', 'bad-offsets', `{"a":{${F32},"shape":[1],"data_offsets":[4,0]}}`, 4],
    ['three offsets', 'bad-offsets', `{"a":{${F32},"shape":[1],"data_offsets":[0,4,8]}}`, 8],
    ['trailing bytes', 'trailing-bytes', `{"a":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 5],
    ['missing bytes', 'truncated', `{"a":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 3],
    ['no tensor but data', 'trailing-bytes', '{}', 1],
    ['an unknown dtype', 'unknown-dtype', '{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}', 4],
    ['a dtype from the prototype', 'unknown-dtype', '{"a":{"dtype":"toString","shape":[1],"data_offsets":[0,4]}}', 4],
    ['half a byte', 'bad-shape', '{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,0]}}', 0],
    ['an unknown key', 'bad-structure', `{"a":{${F32},"shape":[1],"data_offsets":[0,4],"x":1}}`, 4],
    ['a tensor that is a number', 'bad-structure', '{"a":1}', 0],
    ['__proto__ as a tensor that is no tensor', 'bad-structure', '{"__proto__":{"polluted":true}}', 0],
    ['a duplicate tensor', 'duplicate-key', `{"a":{${F32},"shape":[1],"data_offsets":[0,4]},"a":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['a duplicate tensor, escaped', 'duplicate-key', `{"a":{${F32},"shape":[1],"data_offsets":[0,4]},"\\u0061":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['a duplicate shape', 'duplicate-key', `{"a":{${F32},"shape":[1],"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['a dtype twice', 'duplicate-key', `{"a":{${F32},${F32},"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['metadata twice', 'duplicate-key', '{"__metadata__":{},"__metadata__":{}}', 0],
    ['a key of metadata twice', 'duplicate-key', '{"__metadata__":{"a":"1","a":"1"}}', 0],
    ['100,001 entries of metadata', 'bad-metadata', `{"__metadata__":{${Array.from({ length: 100_001 }, (_, i) => `"${i}":""`)}}}`, 0],
    ['metadata that is no object', 'bad-metadata', '{"__metadata__":[1]}', 0],
    ['metadata with a number', 'bad-metadata', '{"__metadata__":{"a":1}}', 0],
    ['an empty name', 'bad-name', `{"":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['a name of 2,000 characters', 'bad-name', `{"${'n'.repeat(2000)}":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['an array', 'not-json', '[]', 0],
    ['leading space', 'not-json', ' {}', 0],
    ['a byte order mark', 'not-json', '\uFEFF{}', 0],
    ['half an object', 'not-json', '{"a":', 0],
    ['bad UTF-8', 'bad-utf8', Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d), 0],
    ['half of a surrogate pair', 'bad-utf8', `{"\\ud800":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 4],
    ['an escape that is none', 'not-json', '{"__metadata__":{"\\x41":""}}', 0],
    ['a raw line break in a string', 'not-json', '{"__metadata__":{"a\n":""}}', 0],
    ['something behind the object', 'not-json', '{}{}', 0],
    ['a comma too many', 'not-json', '{"__metadata__":{},}', 0],
    ['a colon too few', 'not-json', '{"__metadata__" {}}', 0],
    ['a word that is none', 'not-json', '{"__metadata__":nul}', 0],
    ['a tensor without a dtype', 'unknown-dtype', '{"a":{"shape":[],"data_offsets":[0,0]}}', 0],
    ['a tensor without a shape', 'bad-shape', `{"a":{${F32},"data_offsets":[0,4]}}`, 4],
    ['a tensor without offsets', 'bad-offsets', `{"a":{${F32},"shape":[1]}}`, 4],
    ['deep nesting', 'bad-structure', `{"a":${'['.repeat(5000)}${']'.repeat(5000)}}`, 0],
  ])('refuses %s', (_name, code, json, dataLength) => {
    expect(parse(json, dataLength)).toBe(code)
  })

  it('refuses a header longer than the file or the cap', () => {
    const { bytes } = fileOf('{}', 0, 1000n)
    expect(codeOf(() => headerLength(bytes, bytes.byteLength))).toBe('truncated')
    expect(codeOf(() => headerLength(fileOf('{}', 0, 2n ** 63n).bytes, 2 ** 40))).toBe('header-too-large')
    expect(codeOf(() => headerLength(fileOf('{}', 0, BigInt(EDGE_HEADER_CAP) + 1n).bytes, 2 ** 40, EDGE_HEADER_CAP))).toBe('header-too-large')
    expect(codeOf(() => headerLength(new Uint8Array(7), 7))).toBe('truncated')
  })

  it('refuses more than 100,000 tensors, and takes time linear in their number', () => {
    const header = (count: number) => `{${Array.from({ length: count }, (_, i) => `"t${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`).join(',')}}`
    expect(parse(header(100_001), 0)).toBe('too-many-tensors')
    const [few, many] = [header(5000), header(100_000)].map((json) => Math.min(...[1, 2, 3].map(() => {
      const started = process.threadCpuUsage()
      expect(parse(json, 0)).toBe('accepted')
      return process.threadCpuUsage(started).user
    })))
    // 20 times as many; what is quadratic would take 400 times as long.
    expect(many! / few!).toBeLessThan(100)
  })

  it('reads escapes, white space and metadata that is null as JSON has them', () => {
    const json = ` {\t"\\u0061\\n\\ud83d\\ude00" :\r\n{ "shape" : [ 1 , 2 ] , ${F32} , "data_offsets":[0,8] } , "__metadata__" : null } \n`.trimStart()
    const { bytes, size } = fileOf(json, 8)
    expect(parseHeader(bytes, size)).toMatchObject({ metadata: {}, tensors: [{ name: 'a\n😀', shape: [1, 2], begin: 0, end: 8 }] })
  })

  it('resolves the escapes of a long string in pieces, wherever these end', () => {
    const parts = ['\\u0041', '\\n', '\\\\', '\\"', 'x', '\u00e9', '\u20ac', '\u{1f600}', '\\ud83d\\ude00', '\\u0000']
    let text = ''
    for (let i = 0; text.length < 300_000; i++) text += parts[(i * i + (i >> 3)) % parts.length]
    for (const shift of ['', 'a', 'ab', 'abc', 'abcd', 'abcde']) {
      const json = `{"__metadata__":{"a":"${shift}${text}"}}`
      const { bytes, size } = fileOf(json, 0)
      expect(parseHeader(bytes, size).metadata.a === (JSON.parse(json) as { __metadata__: { a: string } }).__metadata__.a).toBe(true)
    }
    for (const [wrong, code] of [['\\u00', 'not-json'], ['\\x', 'not-json'], ['\\ud800', 'bad-utf8']] as const) {
      const { bytes, size } = fileOf(`{"__metadata__":{"a":"${text}${wrong}"}}`, 0)
      expect(codeOf(() => parseHeader(bytes, size))).toBe(code)
    }
  })

  it('orders empty tensors at one place by code points, as UTF-8 does', () => {
    const names = ['\u{1f600}', '\uffff', 'a', 'aa', 'a\u{1f600}', 'a\ue000', '\ud7ff']
    const { bytes, size } = fileOf(`{${names.map((name) => `"${name}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`).join()}}`, 0)
    expect(parseHeader(bytes, size).tensors.map(({ name }) => name)).toEqual(names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
  })

  it('keeps a tensor named __proto__ as data', () => {
    const { bytes, size } = fileOf(`{"__proto__":{${F32},"shape":[1],"data_offsets":[0,4]}}`, 4)
    expect(parseHeader(bytes, size).tensors[0]!.name).toBe('__proto__')
    expect(({} as Record<string, unknown>)['dtype']).toBeUndefined()
  })

  it('names the tensor that is wrong', () => {
    expect(() => parseHeader(...Object.values(fileOf(`{"layer.9":{${F32},"shape":[3],"data_offsets":[0,4]}}`, 4)) as [Uint8Array, number])).toThrow(/"layer\.9".*12 bytes.*4/)
  })
})

const tensorList = fc.uniqueArray(
  fc.record({
    name: fc.string({ minLength: 1, maxLength: 20, unit: 'grapheme' }).filter((name) => name !== '__metadata__'),
    dtype: fc.constantFrom(...(Object.keys(DTYPE_BITS) as Dtype[]).filter((dtype) => DTYPE_BITS[dtype] >= 8)),
    shape: fc.array(fc.nat(5), { maxLength: 4 }),
  }),
  { selector: (tensor) => tensor.name, maxLength: 12 },
)

function dataLength(tensors: { dtype: Dtype; shape: number[] }[]): number {
  return tensors.reduce((sum, { dtype, shape }) => sum + (shape.reduce((a, b) => a * b, 1) * DTYPE_BITS[dtype]) / 8, 0)
}

describe('writeHeader', () => {
  it('is read back as written, data aligned to 8', () => {
    fc.assert(fc.property(tensorList, fc.dictionary(fc.string(), fc.string()), (tensors, metadata) => {
      const bytes = writeHeader(tensors, metadata)
      const header = parseHeader(bytes, bytes.byteLength + dataLength(tensors))
      expect(bytes.byteLength % 8).toBe(0)
      expect(header.dataOffset).toBe(bytes.byteLength)
      expect({ ...header.metadata }).toEqual({ ...metadata })
      const sized = tensors.filter((tensor) => !tensor.shape.includes(0))
      expect(header.tensors.filter((tensor) => !tensor.shape.includes(0)).map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(sized)
    }))
  })
})

describe('a fuzzed corpus', () => {
  it('accepts or refuses with a reason, and never accepts what does not cover the file exactly', () => {
    let refused = 0
    fc.assert(fc.property(tensorList.filter((list) => list.length > 0), fc.infiniteStream(fc.nat()), (tensors, random) => {
      const bytes = writeHeader(tensors)
      const size = bytes.byteLength + dataLength(tensors)
      const broken = bytes.slice()
      for (let flips = 1 + (random.next().value! % 3); flips > 0; flips--) {
        const at = random.next().value! % broken.byteLength
        broken[at] = random.next().value! % 256
      }
      try {
        const header = parseHeader(broken, size)
        const covered = header.tensors.reduce((sum, tensor) => sum + tensor.end - tensor.begin, 0)
        expect(header.dataOffset + covered).toBe(size)
      } catch (error) {
        if (!(error instanceof SafetensorsError)) throw error
        refused++
      }
    }), { numRuns: 1500, seed: 20261124 })
    expect(refused).toBeGreaterThan(1000)
  })

  it('takes arbitrary bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 8, maxLength: 200 }), (noise) => {
      expect(codeOf(() => parseHeader(noise, noise.byteLength))).not.toBe('accepted')
    }), { numRuns: 1000, seed: 7 })
  })
})
