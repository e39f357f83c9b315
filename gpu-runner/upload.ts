import { setTimeout as sleep } from 'node:timers/promises'
import type { SignedRequest } from './protocol.ts'
import { beginRequest, isTransientStatus, pauseBefore, refusedByStore, responseOf, storeUnreachable } from './signed-request.ts'

/** Times that an upload is begun. */
const MAX_TRIES = 4

/** Sends one piece; resolves when the kernel has it, so that its memory may be used again. */
export type WritePiece = (piece: Uint8Array) => Promise<void>

/**
 * Puts the `length` bytes that `produce` writes, one piece at a time. After a failure of the connection or a 5xx the
 * whole is produced and sent again; errors of `produce` itself pass through. Returns what the last `produce` returned.
 */
export async function upload<T>(target: SignedRequest, length: number, signal: AbortSignal, produce: (write: WritePiece) => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    const outcome = await putOnce(target, length, signal, produce)
    if ('result' in outcome) return outcome.result
    signal.throwIfAborted()
    if (tries >= MAX_TRIES) throw storeUnreachable('upload', outcome.transient)
    await sleep(pauseBefore(tries), undefined, { signal })
  }
}

async function putOnce<T>(target: SignedRequest, length: number, signal: AbortSignal, produce: (write: WritePiece) => Promise<T>): Promise<{ result: T } | { transient: unknown }> {
  const request = beginRequest({ ...target, headers: { ...target.headers, 'content-length': String(length) } }, signal)
  let lost: { error: unknown } | null = null
  const answer = responseOf(request).then((response) => {
    response.resume()
    return response.statusCode ?? 0
  })
  // An answer before the end of the body is a refusal: stop writing.
  const early = answer.then((status) => { throw new Error(`the blob store answered ${status} before the end of the body`) })
  early.catch((error: unknown) => (lost ??= { error }))

  let written = 0
  const write: WritePiece = async (piece) => {
    written += piece.byteLength
    const sent = new Promise<void>((resolve, reject) => request.write(piece, (error) => (error ? reject(error) : resolve())))
    try {
      await Promise.race([sent, early])
    } catch (error) {
      lost ??= { error }
      throw error
    }
  }
  try {
    const result = await produce(write)
    if (written !== length) throw new RangeError(`${written} bytes were produced for an upload of ${length}`)
    request.end()
    const status = await answer.catch((error: unknown) => ({ error }))
    if (typeof status === 'object') return { transient: status.error }
    if (status >= 200 && status < 300) return { result }
    if (isTransientStatus(status)) return { transient: new Error(`the blob store answered ${status}`) }
    throw refusedByStore('upload', status)
  } catch (error) {
    if (lost === null) throw error
    const status = await answer.catch(() => null)
    if (status !== null && status >= 300 && !isTransientStatus(status)) throw refusedByStore('upload', status)
    return { transient: (lost as { error: unknown }).error }
  } finally {
    if (!request.writableFinished) request.destroy()
  }
}
