import { SafetensorsError, type SafetensorsErrorCode } from './safetensors-error.ts'

/** More tensors than any real model has; of metadata's entries no more are read either. */
export const TENSOR_COUNT_CAP = 100_000
const RANK_CAP = 16
const NAME_CAP = 1024
/** What a UTF-16 code unit takes at most, as \u0000. */
const MOST_BYTES_PER_UNIT = 6
/** Of a string with escapes, resolved at a time: the whole would be there three times. */
const PIECE_BYTES = 1 << 16

/** One tensor of a header, its values as written; null where the header leaves one out. */
export interface HeaderEntry {
  readonly name: string
  readonly dtype: string | null
  readonly shape: readonly number[] | null
  readonly offsets: readonly number[] | null
}

/**
 * Reads the JSON of a safetensors header: gives each tensor to `onTensor` and returns the metadata. Reads only what a header
 * may hold, so that hostile text builds nothing: `JSON.parse` needs 4.7 GB for 95 MB of brackets. Numbers are plain
 * integers, as the reference demands, and no key appears twice.
 */
export function readHeaderJson(json: Uint8Array, onTensor: (entry: HeaderEntry) => void): Readonly<Record<string, string>> {
  return new Reader(json).header(onTensor)
}

class Reader {
  readonly #json: Uint8Array
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  #at = 0
  /** Name of the tensor that is being read, for the errors. */
  #tensor: string | undefined

  constructor(json: Uint8Array) {
    this.#json = json
  }

  header(onTensor: (entry: HeaderEntry) => void): Record<string, string> {
    if (this.#json[0] !== BRACE) throw new SafetensorsError('not-json', 'the header must start with `{`')
    const names = new Set<string>()
    let metadata: Record<string, string> | undefined
    this.#object('bad-structure', 'the header', (key) => {
      if (key === '__metadata__') {
        if (metadata !== undefined) throw this.#duplicate(key)
        metadata = this.#metadata()
        return
      }
      if (key === '' || key.length > NAME_CAP) throw badName(key)
      if (names.has(key)) throw this.#duplicate(key)
      if (names.size === TENSOR_COUNT_CAP) throw new SafetensorsError('too-many-tensors', `the header names more than ${TENSOR_COUNT_CAP} tensors`)
      names.add(key)
      this.#tensor = key
      onTensor(this.#entry(key))
      this.#tensor = undefined
    }, NAME_CAP * MOST_BYTES_PER_UNIT)
    this.#space()
    if (this.#at < this.#json.byteLength) throw this.#notJson()
    return metadata ?? {}
  }

  #metadata(): Record<string, string> {
    if (this.#space() === LETTER_N) {
      this.#word('null')
      return {}
    }
    const metadata = new Map<string, string>()
    this.#object('bad-metadata', '__metadata__', (key) => {
      if (metadata.has(key)) throw this.#duplicate(key)
      if (metadata.size === TENSOR_COUNT_CAP) throw new SafetensorsError('bad-metadata', `__metadata__ has more than ${TENSOR_COUNT_CAP} entries`)
      if (this.#space() !== QUOTE) throw this.#unexpected('bad-metadata', `__metadata__ entry ${JSON.stringify(key.slice(0, 200))} must be a string`)
      metadata.set(key, this.#string())
    })
    return Object.fromEntries(metadata)
  }

  #entry(name: string): HeaderEntry {
    let dtype: string | null = null
    let shape: number[] | null = null
    let offsets: number[] | null = null
    this.#object('bad-structure', 'a tensor', (key) => {
      if (key === 'dtype') {
        if (dtype !== null) throw this.#duplicate(key)
        if (this.#space() !== QUOTE) throw this.#unexpected('unknown-dtype', 'dtype must be a string')
        dtype = this.#string()
      } else if (key === 'shape') {
        if (shape !== null) throw this.#duplicate(key)
        shape = this.#integers('bad-shape', key, RANK_CAP)
      } else if (key === 'data_offsets') {
        if (offsets !== null) throw this.#duplicate(key)
        offsets = this.#integers('bad-offsets', key, 2)
      } else {
        throw new SafetensorsError('bad-structure', `has the unknown key ${JSON.stringify(key.slice(0, 200))}`, name)
      }
    })
    return { name, dtype, shape, offsets }
  }

  #object(code: SafetensorsErrorCode, what: string, readValue: (key: string) => void, mostBytes?: number): void {
    if (this.#space() !== BRACE) throw this.#unexpected(code, `${what} must be an object`)
    this.#at++
    if (this.#space() === BRACE_END) {
      this.#at++
      return
    }
    for (;;) {
      if (this.#space() !== QUOTE) throw this.#notJson()
      const key = this.#string(mostBytes)
      if (this.#space() !== COLON) throw this.#notJson()
      this.#at++
      readValue(key)
      const next = this.#space()
      if (next !== COMMA && next !== BRACE_END) throw this.#notJson()
      this.#at++
      if (next === BRACE_END) return
    }
  }

  #integers(code: SafetensorsErrorCode, what: string, cap: number): number[] {
    const wrong = () => this.#unexpected(code, `${what} must be an array of integers from 0 to 2^53-1`)
    if (this.#space() !== BRACKET) throw wrong()
    this.#at++
    const values: number[] = []
    if (this.#space() === BRACKET_END) {
      this.#at++
      return values
    }
    for (;;) {
      if (values.length === cap) throw new SafetensorsError(code, `${what} has more than ${cap} numbers`, this.#tensor)
      const first = this.#space()
      let value = 0
      const start = this.#at
      for (let digit = first; isDigit(digit); digit = this.#json[++this.#at]) value = value * 10 + (digit - ZERO)
      // 17 digits and more are beyond 2^53 whatever they are, unless they start with zeros, which JSON forbids.
      if (this.#at === start || (first === ZERO && this.#at > start + 1) || !Number.isSafeInteger(value)) throw wrong()
      values.push(value)
      const next = this.#space()
      if (next !== COMMA && next !== BRACKET_END) throw wrong()
      this.#at++
      // A copy: what push has left room for would be kept 100,000 times.
      if (next === BRACKET_END) return values.slice()
    }
  }

  /** Refuses as a name what is longer than `mostBytes`, unread. */
  #string(mostBytes = Infinity): string {
    const start = ++this.#at
    let isEscaped = false
    for (; ; this.#at++) {
      const byte = this.#json[this.#at]
      if (byte === QUOTE) break
      if (byte === undefined || byte < 0x20) throw this.#notJson()
      if (byte !== BACKSLASH) continue
      isEscaped = true
      this.#at++
    }
    const bytes = this.#json.subarray(start, this.#at++)
    if (bytes.byteLength > mostBytes) throw badName()
    try {
      const value = isEscaped ? this.#resolved(bytes) : this.#utf8.decode(bytes)
      if (value.isWellFormed()) return value
    } catch (error) {
      if (error instanceof SyntaxError) throw this.#notJson()
    }
    throw new SafetensorsError('bad-utf8', `the string at byte ${start - 1} of the header is not valid UTF-8`, this.#tensor)
  }

  #resolved(bytes: Uint8Array): string {
    let text = ''
    for (let start = 0, end = 0; start < bytes.byteLength; start = end) {
      // Up to where neither an escape nor a character is cut.
      while (end < bytes.byteLength && (end - start < PIECE_BYTES || (bytes[end]! & 0xc0) === 0x80)) end += bytes[end] !== BACKSLASH ? 1 : bytes[end + 1] === LETTER_U ? 6 : 2
      text += JSON.parse(`"${this.#utf8.decode(bytes.subarray(start, end))}"`) as string
    }
    return text
  }

  #word(word: string): void {
    for (const character of word) {
      if (this.#json[this.#at++] !== character.charCodeAt(0)) throw this.#notJson()
    }
  }

  /** Skips white space and gives the byte behind it. */
  #space(): number | undefined {
    let byte = this.#json[this.#at]
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) byte = this.#json[++this.#at]
    return byte
  }

  #duplicate(key: string): SafetensorsError {
    return new SafetensorsError('duplicate-key', `the key ${JSON.stringify(key.slice(0, 200))} appears twice in one object`, this.#tensor)
  }

  #notJson(): SafetensorsError {
    const end = this.#at >= this.#json.byteLength
    return new SafetensorsError('not-json', end ? 'the header is not valid JSON: it ends too early' : `the header is not valid JSON at its byte ${this.#at}`, this.#tensor)
  }

  #unexpected(code: SafetensorsErrorCode, message: string): SafetensorsError {
    return this.#at >= this.#json.byteLength ? this.#notJson() : new SafetensorsError(code, message, this.#tensor)
  }
}

function badName(name?: string): SafetensorsError {
  return new SafetensorsError('bad-name', `a tensor name must have 1 to ${NAME_CAP} characters`, name)
}

const QUOTE = 0x22
const COMMA = 0x2c
const ZERO = 0x30
const COLON = 0x3a
const BRACKET = 0x5b
const BACKSLASH = 0x5c
const BRACKET_END = 0x5d
const LETTER_N = 0x6e
const LETTER_U = 0x75
const BRACE = 0x7b
const BRACE_END = 0x7d

function isDigit(byte: number | undefined): byte is number {
  return byte !== undefined && byte >= ZERO && byte <= 0x39
}
