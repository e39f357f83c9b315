import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Extent } from '../../../patch/extent.ts'
import { BlobMissingError, blobKey, type BlobStore, type ByteRange } from '../../ports/blob-store.ts'
import { streamExtents } from './stream-extents.ts'

const MIB = 1024 * 1024

/** A store of blobs in memory that tells what was opened, how much was read, and what was let go. */
function memoryStore(blobs: Record<string, Uint8Array>, { chunk = 7, short = '' }: { chunk?: number; short?: string } = {}) {
  const seen = { opened: [] as string[], open: 0, served: 0, cancelled: 0 }
  const keys = new Map(Object.entries(blobs).map(([blob, bytes]) => [blobKey(blob), { blob, bytes }]))
  async function read(key: string, range: ByteRange): Promise<ReadableStream<Uint8Array>> {
    const found = keys.get(key)
    seen.opened.push(found?.blob ?? key)
    await Promise.resolve()
    if (found === undefined) throw new BlobMissingError(key)
    let at = range.offset
    const end = range.offset + range.length - (found.blob === short ? 1 : 0)
    seen.open++
    return new ReadableStream<Uint8Array>({
      pull(controller) {
        const bytes = found.bytes.slice(at, Math.min(end, at + chunk))
        at += bytes.length
        seen.served += bytes.length
        if (bytes.length > 0) controller.enqueue(bytes)
        else {
          seen.open--
          controller.close()
        }
      },
      cancel() {
        seen.open--
        seen.cancelled++
      },
    })
  }
  return { seen, store: { read } as unknown as BlobStore }
}

function open(store: BlobStore, extents: readonly Extent[]) {
  return streamExtents({ open: ({ blob, offset, length }, signal) => store.read(blobKey(blob!), { offset, length }, { signal }), extents, what: 'a test' })
}

async function collect(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

const letters = (text: string) => new TextEncoder().encode(text)

describe('streamExtents', () => {
  it('concatenates extents in order, whatever their number and size', async () => {
    const blobs = { a: letters('abcdefghijklmnopqrstuvwxyz'), b: letters('0123456789'), c: letters('~') }
    const extent = fc.constantFrom('a', 'b', 'c').chain((blob) => {
      const { length } = blobs[blob as 'a']
      return fc.tuple(fc.nat(length), fc.nat(length)).map(([x, y]) => ({ blob, offset: Math.min(x, y), length: Math.abs(x - y) }))
    })
    await fc.assert(fc.asyncProperty(fc.array(extent, { maxLength: 20 }), fc.integer({ min: 1, max: 30 }), async (extents, chunk) => {
      const { store, seen } = memoryStore(blobs, { chunk })
      const expected = extents.map(({ blob, offset, length }) => new TextDecoder().decode(blobs[blob as 'a'].subarray(offset, offset + length))).join('')
      expect(new TextDecoder().decode(await collect(await open(store, extents)))).toBe(expected)
      expect(seen.open).toBe(0)
    }), { numRuns: 200 })
  })

  it('opens the next extent before its turn, but reads no faster than its reader', async () => {
    const big = new Uint8Array(8 * MIB)
    const { store, seen } = memoryStore({ a: big, b: big, c: big, d: big }, { chunk: MIB })
    const stream = await open(store, ['a', 'b', 'c', 'd'].map((blob) => ({ blob, offset: 0, length: big.length })))
    const reader = stream.getReader()
    await reader.read()
    await delay(20)
    expect(seen.opened).toContain('b')
    expect(seen.opened).not.toContain('d')
    expect(seen.served).toBeLessThanOrEqual(4 * MIB)
    await reader.cancel()
  })

  it('rejects at once where the first blob is missing', async () => {
    const { store } = memoryStore({})
    await expect(open(store, [{ blob: 'gone', offset: 0, length: 1 }])).rejects.toThrow(BlobMissingError)
  })

  it('lets go of what it opened ahead where the first blob is missing', async () => {
    const { store, seen } = memoryStore({ a: letters('abc') })
    await expect(open(store, [{ blob: 'gone', offset: 0, length: 1 }, { blob: 'a', offset: 0, length: 3 }])).rejects.toThrow(BlobMissingError)
    expect(seen.open).toBe(0)
  })

  it.each(['missing', 'short'])('errors after the bytes before it where a later blob is %s', async (fault) => {
    const { store, seen } = memoryStore({ a: letters('abc'), b: letters('def'), c: letters('ghi') }, { short: fault === 'short' ? 'b' : '' })
    const extents = ['a', fault === 'short' ? 'b' : 'gone', 'c'].map((blob) => ({ blob, offset: 0, length: 3 }))
    const reader = (await open(store, extents)).getReader()
    const got: number[] = []
    const failure = await (async () => {
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return null
        got.push(...value)
      }
    })().catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(Error)
    expect(String(failure)).toMatch(fault === 'short' ? /a test: blob b ends 1 bytes early/ : /has no object/)
    expect(new TextDecoder().decode(new Uint8Array(got))).toBe(fault === 'short' ? 'abcde' : 'abc')
    expect(seen.open).toBe(0)
  })

  it('goes on where the bytes of an extent stopped coming, and gives up where none come any more', async () => {
    const bytes = letters('abcdefghijklmnopqrstuvwxyz')
    const broken = (offset: number, length: number, after: number) => {
      let left = Math.min(after, length)
      return new ReadableStream<Uint8Array>({
        pull(controller) {
          if (left === 0) return after >= length ? controller.close() : controller.error(new Error('the connection was closed'))
          controller.enqueue(bytes.subarray(offset, offset + left))
          left = 0
        },
      }, { highWaterMark: 0 })
    }
    const opened: [number, number][] = []
    const stream = (after: number) => streamExtents({ open: async ({ offset, length }) => (opened.push([offset, length]), broken(offset, length, after)), extents: [{ blob: 'a', offset: 2, length: 20 }], what: 'a test' })
    expect(new TextDecoder().decode(await collect(await stream(8)))).toBe('cdefghijklmnopqrstuv')
    expect(opened).toEqual([[2, 20], [10, 12], [18, 4]])
    await expect(collect(await stream(0))).rejects.toThrow('the connection was closed')
    expect(opened).toHaveLength(3 + 4)
  })

  it('cancels the extent that it reads and those that it opened ahead', async () => {
    const big = new Uint8Array(3 * MIB)
    const { store, seen } = memoryStore({ a: big, b: big }, { chunk: MIB })
    const reader = (await open(store, ['a', 'b'].map((blob) => ({ blob, offset: 0, length: big.length })))).getReader()
    await reader.read()
    expect(seen.open).toBe(2)
    await reader.cancel(new Error('the client left'))
    expect(seen).toMatchObject({ open: 0, cancelled: 2 })
  })
})
