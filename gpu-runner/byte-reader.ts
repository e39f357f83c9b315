/** Hands the bytes of a stream out in the sizes that the caller wants. */
export interface ByteReader {
  /** Fills `target` and returns how many bytes it got: fewer than its length only at the end of the stream. */
  fill(target: Uint8Array): Promise<number>
  /** Lets go of the stream. */
  close(): Promise<void>
}

export function byteReader(stream: AsyncGenerator<Buffer, void, undefined>): ByteReader {
  let rest: Buffer = Buffer.alloc(0)
  return {
    async fill(target) {
      let filled = 0
      while (filled < target.byteLength) {
        if (rest.byteLength === 0) {
          const next = await stream.next()
          if (next.done) break
          rest = next.value
        }
        const taken = Math.min(rest.byteLength, target.byteLength - filled)
        target.set(taken === rest.byteLength ? rest : rest.subarray(0, taken), filled)
        rest = rest.subarray(taken)
        filled += taken
      }
      return filled
    },
    async close() {
      rest = Buffer.alloc(0)
      await stream.return()
    },
  }
}
