interface Entry<V> {
  readonly value: Promise<V>
  readonly bytes: number
  /** How many work with it. */
  pins: number
  failed: boolean
}

/** Values that cost to make, kept up to a number of bytes; the one used longest ago goes first, and none that is in use. */
export class PinnedCache<V> {
  readonly #limit: number
  readonly #letGo: (value: V) => void
  /** In the order of last use. */
  readonly #entries = new Map<string, Entry<V>>()
  #bytes = 0

  constructor(limit: number, letGo: (value: V) => void) {
    this.#limit = limit
    this.#letGo = letGo
  }

  /** Works with the value, which is made first where it is not there; it stays as long as the work lasts. */
  async use<T>(key: string, { bytes, make }: { bytes: number; make: () => Promise<V> }, work: (value: V) => Promise<T>): Promise<T> {
    const entry = this.#entries.get(key) ?? this.#add(bytes, make())
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    entry.pins++
    try {
      return await work(await entry.value)
    } finally {
      entry.pins--
      this.#trim()
    }
  }

  #add(bytes: number, value: Promise<V>): Entry<V> {
    const entry = { value, bytes, pins: 0, failed: false }
    value.catch(() => (entry.failed = true))
    this.#bytes += bytes
    return entry
  }

  #trim(): void {
    for (const [key, entry] of this.#entries) {
      if (entry.pins > 0 || (this.#bytes <= this.#limit && !entry.failed)) continue
      this.#entries.delete(key)
      this.#bytes -= entry.bytes
      void entry.value.then(this.#letGo, () => {})
    }
  }
}
