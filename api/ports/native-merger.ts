import { loadCore, type Core } from '../../gpu-runner/core/core.ts'
import { packTensor, packedTensorBytes, type PackedTensor } from '../../gpu-runner/core/packed-tensor.ts'
import { freeBuffer } from '../../gpu-runner/free-buffer.ts'
import { memoryBudget } from '../../gpu-runner/memory-budget.ts'
import { blobKey, type BlobStore } from './blob-store.ts'
import { countStreamed } from '../../gpu-runner/garbage-collector.ts'
import { PinnedCache } from './pinned-cache.ts'
import type { LocatedBytes, LocatedTensor, TensorMerger } from './tensor-merger.ts'

/** Bytes merged at once: large enough that what surrounds a call does not show; the core itself works in pieces that stay in the cache. */
const TILE_BYTES = 1024 * 1024
/** Tiles that one answer has ready, or in the making, beside the one that is being sent. */
const TILES_AHEAD = 2
/** What is being computed for all answers: tiles, and factors on their way. It is held no longer than the computing takes. */
const COMPUTING_BYTES = 8 * 1024 * 1024
/** The most tiles at once; the foreign-function interface takes no more than 64 calls at a time. */
const MAX_COMPUTING = 8
/** What lies ready for all answers. Who gets none of it computes a tile only when it is asked for: a client that stops reading holds up nobody. */
const AHEAD_BYTES = 4 * 1024 * 1024
/** Packed factors that are kept for the next tile, or the next answer. */
const PACKED_BYTES = 8 * 1024 * 1024
/** Tiles that wait to be used again; the memory of those beyond is given back. */
const MAX_FREE = 8
/** Derivations whose tensors stay located. */
const LOCATED = 16

type Asked = Parameters<TensorMerger['open']>[0]

interface Tile {
  readonly buffer: Buffer<ArrayBuffer>
  /** The part that was asked for. */
  readonly bytes: Uint8Array
}

function allocate(length: number): Buffer<ArrayBuffer> {
  countStreamed(length)
  return Buffer.allocUnsafeSlow(length)
}

/** Merge on read by the native core in this process, which is loaded (and compiled, where it must be) when it is first needed. */
export function createNativeMerger(blobs: Pick<BlobStore, 'open'>, { tileBytes = TILE_BYTES, aheadBytes = AHEAD_BYTES } = {}): TensorMerger {
  const computing = memoryBudget(COMPUTING_BYTES)
  const ahead = memoryBudget(aheadBytes)
  const packed = new PinnedCache<PackedTensor<LocatedBytes>>(PACKED_BYTES, (tensor) => tensor.close())
  const free: Buffer<ArrayBuffer>[] = []
  const located = new Map<string, Promise<readonly LocatedTensor[]>>()
  let loading: Promise<Core> | undefined

  /** One thread for each tile: several tiles are computed at once. */
  function core(): Promise<Core> {
    loading ??= loadCore({ threads: 1 })
    loading.catch(() => (loading = undefined))
    return loading
  }

  function tensorsOf(derivation: string, locate: () => Promise<readonly LocatedTensor[]>): Promise<readonly LocatedTensor[]> {
    const found = located.get(derivation) ?? locate()
    located.delete(derivation)
    located.set(derivation, found)
    found.catch(() => located.delete(derivation))
    for (const oldest of located.keys()) if (located.size > LOCATED) located.delete(oldest)
    return found
  }

  async function readBlob({ blob, offset }: LocatedBytes, from: number, into: Uint8Array): Promise<void> {
    const opened = await blobs.open(blobKey(blob))
    try {
      await opened.read(into, offset + from)
    } finally {
      await opened.close()
    }
  }

  async function pack(tensor: LocatedTensor): Promise<PackedTensor<LocatedBytes>> {
    const factors = await Promise.all(tensor.factors.map(async (factor) => {
      const bytes = allocate(factor.length)
      await readBlob(factor, 0, bytes)
      return { bytes, dtype: factor.dtype }
    }))
    const merge = packTensor(await core(), tensor, factors)
    for (const { bytes } of factors) freeBuffer(bytes)
    return merge
  }

  async function openRows(key: string, tensor: LocatedTensor, { range, signal, reuse }: Asked): Promise<ReadableStream<Uint8Array>> {
    const source = await blobs.open(blobKey(tensor.source.blob))
    const rowBytes = tensor.source.length / tensor.rows
    const rowsAtOnce = Math.max(1, Math.floor(tileBytes / rowBytes))
    const [start, end] = [range.offset, range.offset + range.length]
    const endRow = Math.ceil(end / rowBytes)
    const packing = { bytes: packedTensorBytes(tensor), make: () => pack(tensor) }
    const cost = packing.bytes + tensor.factors.reduce((sum, { length }) => sum + length, 0)
    const ready: { tile: Promise<Tile>; giveBack: () => void }[] = []
    const running = new Set<Promise<unknown>>()
    let row = Math.floor(start / rowBytes)
    let sent: Tile | null = null
    let open = true

    function recycle({ buffer }: Tile): void {
      if (!reuse) return
      if (buffer.byteLength === tileBytes && free.length < MAX_FREE) free.push(buffer)
      else freeBuffer(buffer)
    }

    /** Rows `[first, first + count)`, and which of their bytes lie in the range. */
    async function compute(first: number, count: number): Promise<Tile> {
      const length = count * rowBytes
      const giveBack = await computing.take(Math.max(COMPUTING_BYTES / MAX_COMPUTING, length + cost))
      try {
        return await packed.use(key, packing, async (merge) => {
          if (!open || signal.aborted) throw signal.reason ?? new Error('the answer was cancelled')
          const buffer = (reuse && length <= tileBytes && free.pop()) || allocate(reuse ? Math.max(length, tileBytes) : length)
          const rows = buffer.subarray(0, length)
          if (source.file === undefined || !(await merge.mergeFileRows(first, count, source.file, tensor.source.offset, rows, readBlob))) {
            await source.read(rows, tensor.source.offset + first * rowBytes)
            await merge.mergeRows(first, count, rows, readBlob)
          }
          return { buffer, bytes: rows.subarray(Math.max(0, start - first * rowBytes), Math.min(length, end - first * rowBytes)) }
        })
      } finally {
        giveBack()
      }
    }

    function begin(giveBack: () => void): void {
      const count = Math.min(rowsAtOnce, endRow - row)
      const tile = compute(row, count)
      const ended = tile.then(() => {}, () => {}).finally(() => running.delete(ended))
      running.add(ended)
      ready.push({ tile, giveBack })
      row += count
    }

    function beginAhead(): void {
      while (row < endRow && ready.length < TILES_AHEAD) {
        const giveBack = ahead.tryTake(Math.min(rowsAtOnce, endRow - row) * rowBytes)
        if (giveBack === null) return
        begin(giveBack)
      }
    }

    async function close(): Promise<void> {
      if (!open) return
      open = false
      await Promise.all(running)
      for (const { tile, giveBack } of ready.splice(0)) {
        giveBack()
        await tile.then(recycle, () => {})
      }
      await source.close()
    }

    beginAhead()
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        try {
          if (sent !== null) recycle(sent)
          sent = null
          if (ready.length === 0 && row >= endRow) {
            await close()
            return controller.close()
          }
          if (ready.length === 0) begin(() => {})
          const { tile, giveBack } = ready.shift()!
          beginAhead()
          sent = await tile.finally(giveBack)
          controller.enqueue(sent.bytes)
        } catch (error) {
          await close()
          throw new Error(`the tensor ${tensor.name} cannot be computed: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
        }
      },
      // What was handed out last may still be on its way: its memory is left to the garbage collector.
      cancel: close,
    }, { highWaterMark: 0 })
  }

  return {
    obstacle: () => core().then(() => null, (error: unknown) => `The registry's merge core does not run: ${error instanceof Error ? error.message : String(error)}`),
    async open(asked) {
      const [tensors] = await Promise.all([tensorsOf(asked.derivation, asked.locate), core()])
      return openRows(`${asked.derivation} ${asked.tensor}`, tensors[asked.tensor]!, asked)
    },
  }
}
