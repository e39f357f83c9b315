import { randomBytes } from 'node:crypto'
import { afterAll, expect, test } from 'vitest'
import { byteReader } from './byte-reader.ts'
import { download, downloadBytes, SizeMismatchError } from './download.ts'
import { startObjectServer } from './object-server.ts'
import { upload } from './upload.ts'

const server = await startObjectServer()
afterAll(() => server.close())
const signal = new AbortController().signal
const bytes = randomBytes(3_000_000)
server.objects.set('/a', bytes)

test('a download that is cut goes on where it stopped', async () => {
  server.faults.push({ method: 'GET', path: '/a', cutAfter: 1_000_000 }, { method: 'GET', path: '/a', status: 503 }, { method: 'GET', path: '/a', cutAfter: 70_000 })
  server.requests.length = 0
  expect((await downloadBytes(server.get('/a'), bytes.byteLength, signal)).equals(bytes)).toBe(true)
  expect(server.requests).toHaveLength(4)
  expect(server.requests.at(-1)).toMatch(/^GET \/a bytes=[1-9]\d+-$/)
})

test('a signed range that is cut is asked for again as it was signed', async () => {
  server.faults.push({ method: 'GET', path: '/a', cutAfter: 500_000 })
  server.requests.length = 0
  const part = await downloadBytes(server.get('/a', { offset: 11, length: 2_000_000 }), 2_000_000, signal)
  expect(part.equals(bytes.subarray(11, 2_000_011))).toBe(true)
  expect(server.requests).toEqual(['GET /a bytes=11-2000010', 'GET /a bytes=11-2000010'])
})

test('a download ends with a reason: wrong size, refused, out of tries, aborted', async () => {
  await expect(downloadBytes(server.get('/a'), 17, signal)).rejects.toThrow(SizeMismatchError)
  await expect(downloadBytes(server.get('/none'), 17, signal)).rejects.toMatchObject({ code: 'storage_refused', retryable: true })
  server.faults.push(...Array.from({ length: 5 }, () => ({ method: 'GET' as const, path: '/a', status: 500 })))
  await expect(downloadBytes(server.get('/a'), bytes.byteLength, signal)).rejects.toMatchObject({ code: 'storage_unreachable', retryable: true })
  const controller = new AbortController()
  const stream = download(server.get('/a'), bytes.byteLength, controller.signal)
  await stream.next()
  controller.abort(new Error('enough'))
  const rest = async () => {
    for await (const _ of stream);
  }
  await expect(rest()).rejects.toThrow('enough')
})

test('the reader gives the sizes that were asked for, and fewer only at the end', async () => {
  const reader = byteReader(download(server.get('/a'), bytes.byteLength, signal))
  const found: Uint8Array[] = []
  for (const size of [1, 7, 100_000, 0, 65_536, 2_900_000]) {
    const target = new Uint8Array(size)
    found.push(target.subarray(0, await reader.fill(target)))
  }
  expect(found.map(({ byteLength }) => byteLength)).toEqual([1, 7, 100_000, 0, 65_536, 3_000_000 - 165_544])
  expect(Buffer.concat(found).equals(bytes)).toBe(true)
})

async function put(path: string): Promise<number> {
  let productions = 0
  await upload(server.put(path), bytes.byteLength, signal, async (write) => {
    productions++
    // One buffer for all pieces: it must have been sent when write resolves.
    const piece = Buffer.alloc(250_000)
    for (let at = 0; at < bytes.byteLength; at += piece.byteLength) {
      bytes.copy(piece, 0, at)
      await write(piece)
    }
  })
  return productions
}

test('an upload is produced again after a 503, a cut and an early answer', async () => {
  expect(await put('/plain')).toBe(1)
  expect(server.objects.get('/plain')!.equals(bytes)).toBe(true)
  server.faults.push({ method: 'PUT', path: '/b', status: 503 }, { method: 'PUT', path: '/b', cutAfter: 1_000_000 })
  expect(await put('/b')).toBe(3)
  expect(server.objects.get('/b')!.equals(bytes)).toBe(true)
})

test('an upload that is refused, or whose production fails, is not tried again', async () => {
  server.faults.push({ method: 'PUT', path: '/c', status: 403 })
  await expect(put('/c')).rejects.toMatchObject({ code: 'storage_refused', message: expect.stringContaining('403') })
  let tries = 0
  await expect(upload(server.put('/c'), 10, signal, async () => {
    tries++
    throw new TypeError('mine')
  })).rejects.toThrow('mine')
  await expect(upload(server.put('/c'), 10, signal, async (write) => write(Buffer.alloc(9)))).rejects.toThrow('9 bytes')
  expect(tries).toBe(1)
  expect(server.objects.has('/c')).toBe(false)
})
