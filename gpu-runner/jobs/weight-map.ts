import { DuplicateKeyError, parseStrictJson } from '../../patch/strict-json.ts'

/** Of what an index says beside its weight_map, which is a number or two. */
const MAX_OTHER_LENGTH = 1 << 20

/**
 * Reads an index of safetensors shards and gives each entry of its `weight_map` to `onTensor`, as often as it is there.
 * Nothing else is kept, so that a text of 16 MiB costs no more than itself. Throws SyntaxError or DuplicateKeyError.
 */
export function readWeightMap(text: string, onTensor: (name: string, shard: string) => void): void {
  new Reader(text).index(onTensor)
}

class Reader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  index(onTensor: (name: string, shard: string) => void): void {
    const keys = new Set<string>()
    this.#object((key) => {
      if (keys.has(key)) throw new DuplicateKeyError(key)
      keys.add(key)
      if (key !== 'weight_map') return this.#other()
      if (this.#next() !== '{') throw noMap()
      this.#object((name) => {
        if (this.#next() !== '"') throw noMap()
        onTensor(name, this.#string())
      })
    })
    if (this.#next() !== '') throw this.#wrong()
    if (!keys.has('weight_map')) throw noMap()
  }

  #object(readValue: (key: string) => void): void {
    this.#take('{')
    if (this.#next() === '}') return this.#take('}')
    for (;;) {
      const key = this.#string()
      this.#take(':')
      readValue(key)
      if (this.#next() === '}') return this.#take('}')
      this.#take(',')
    }
  }

  #string(): string {
    if (this.#next() !== '"') throw this.#wrong()
    const start = this.#at
    this.#toEndOfString()
    return JSON.parse(this.#text.slice(start, this.#at)) as string
  }

  /** Any value, of which it is only seen to that it is one. */
  #other(): void {
    this.#next()
    const start = this.#at
    let depth = 0
    for (; this.#at < this.#text.length; this.#at++) {
      const character = this.#text[this.#at]!
      if (character === '"') {
        this.#toEndOfString()
        this.#at--
      } else if (character === '{' || character === '[') {
        depth++
      } else if (character === '}' || character === ']') {
        if (depth === 0) break
        depth--
      } else if (character === ',' && depth === 0) {
        break
      }
    }
    if (this.#at - start > MAX_OTHER_LENGTH) throw new SyntaxError(`what it says beside weight_map is longer than ${MAX_OTHER_LENGTH} characters`)
    parseStrictJson(this.#text.slice(start, this.#at))
  }

  #toEndOfString(): void {
    for (this.#at++; this.#text[this.#at] !== '"'; this.#at++) {
      if (this.#text[this.#at] === '\\') this.#at++
      if (this.#at >= this.#text.length) throw this.#wrong()
    }
    this.#at++
  }

  /** Skips white space; the character behind it, or nothing at the end. */
  #next(): string {
    while (this.#at < this.#text.length && ' \t\n\r'.includes(this.#text[this.#at]!)) this.#at++
    return this.#text[this.#at] ?? ''
  }

  #take(character: string): void {
    if (this.#next() !== character) throw this.#wrong()
    this.#at++
  }

  #wrong(): SyntaxError {
    return new SyntaxError(this.#at >= this.#text.length ? 'it is no JSON: it ends too early' : `it is no JSON object at its character ${this.#at}`)
  }
}

function noMap(): SyntaxError {
  return new SyntaxError('it has no weight_map from tensor names to file names')
}
