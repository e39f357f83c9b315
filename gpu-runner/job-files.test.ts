import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, it } from 'vitest'
import { dataFolder } from './data-folder.ts'
import { fetchFiles } from './fetch-files.ts'
import { sha256Hex, startObjectServer } from './object-server.ts'
import type { MadeFile, SignedFile } from './protocol.ts'
import { openScratch } from './scratch.ts'
import { sendFiles } from './send-files.ts'

const server = await startObjectServer()
const root = await mkdtemp(join(tmpdir(), 'portllm-files-'))
afterAll(async () => {
  await server.close()
  await rm(root, { recursive: true, force: true })
})
let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(root, 'x-'))
  server.requests.length = 0
  server.faults.length = 0
})

const never = new AbortController().signal

/** A file of two extents, the second a range of its object. */
function signed(path: string, text: string, sha256: string | null = sha256Hex(Buffer.from(text))): SignedFile {
  const half = Math.floor(text.length / 2)
  server.objects.set(`/${path}/a`, Buffer.from(text.slice(0, half)))
  server.objects.set(`/${path}/b`, Buffer.from(`xx${text.slice(half)}yy`))
  const extents = [{ get: server.get(`/${path}/a`), length: half }, { get: server.get(`/${path}/b`, { offset: 2, length: text.length - half }), length: text.length - half }]
  return { path, size: text.length, sha256, extents }
}

it('files are fetched extent by extent, once, and stand under their names only when they are whole', async () => {
  let bytes = 0
  const fetch = (files: SignedFile[]) => fetchFiles(files, folder, { signal: never, onBytes: (count) => (bytes += count) })
  const files = [signed('config.json', '{"a":1}'), signed('deep/er/model.safetensors', 'weights', null), { path: 'empty.txt', size: 0, sha256: sha256Hex(Buffer.alloc(0)), extents: [] }]
  await fetch(files)
  expect([await readFile(join(folder, 'config.json'), 'utf8'), await readFile(join(folder, 'deep/er/model.safetensors'), 'utf8'), bytes]).toEqual(['{"a":1}', 'weights', 14])
  server.requests.length = 0
  await fetch(files)
  expect([server.requests, bytes]).toEqual([[], 28])

  await expect(fetch([signed('bad.json', 'text', '0'.repeat(64))])).rejects.toMatchObject({ code: 'input_changed', retryable: true })
  await expect(fetch([{ ...signed('long.json', 'text'), size: 5 }])).rejects.toMatchObject({ code: 'input_changed', message: expect.stringContaining('long.json') })
  await expect(fetch([signed('../out.json', 'text')])).rejects.toThrow('not allowed')
  expect((await readdir(folder)).filter((name) => /^(bad|long)\.json$/.test(name))).toEqual([])
})

it('what was made is announced whole, and only what the registry lacks is sent, again after a failure', async () => {
  await mkdir(join(folder, 'logs'))
  for (const [path, text] of [['b.txt', 'held'], ['a.txt', '0123456789'], ['logs/empty', '']] as const) await writeFile(join(folder, path), text)
  let announced: readonly MadeFile[] = []
  const sent: number[] = []
  server.faults.push({ method: 'PUT', path: '/a2', status: 503 })
  const part = (path: string, offset: number, length: number, stored = false) => ({ ...server.put(path), offset, length, stored })
  const files = await sendFiles(folder, {
    signal: never,
    outputs: async (made) => {
      announced = made
      return { files: [{ path: 'a.txt', parts: [part('/a1', 0, 6, true), part('/a2', 6, 4)] }, { path: 'b.txt', parts: [] }, { path: 'logs/empty', parts: [part('/empty', 0, 0)] }] }
    },
    onBytes: (done, total) => void sent.push(done, total),
  })
  expect(files).toEqual(announced)
  expect(files).toEqual([['a.txt', '0123456789'], ['b.txt', 'held'], ['logs/empty', '']].map(([path, text]) => ({ path, size: text!.length, sha256: sha256Hex(Buffer.from(text!)) })))
  expect([server.objects.get('/a1'), String(server.objects.get('/a2')), server.objects.get('/empty')?.length]).toEqual([undefined, '6789', 0])
  expect(sent.slice(-2)).toEqual([4, 4])
  expect(await sendFiles(await mkdtemp(join(root, 'y-')), { signal: never, outputs: () => Promise.reject(new Error('nothing to announce')), onBytes() {} })).toEqual([])
})

it('a scratch folder is one attempt\'s at a time; what is kept is found again, what is forgotten removed', async () => {
  process.env.PORTLLM_SCRATCH = join(folder, 'scratch')
  const first = await openScratch('job', never)
  await writeFile(join(first.folder, 'checkpoint'), 'x')
  let opened = false
  const waiting = openScratch('job', never).then((scratch) => ((opened = true), scratch))
  const stop = new AbortController()
  const stopped = openScratch('job', stop.signal)
  setTimeout(() => stop.abort(new Error('told to stop')), 50)
  await expect(stopped).rejects.toThrow('told to stop')
  expect(opened).toBe(false)
  await first.close(true)
  const second = await waiting
  expect(await readdir(second.folder)).toEqual(['checkpoint'])
  const old = join(folder, 'scratch', 'old')
  await mkdir(old)
  await utimes(old, 0, 0)
  const other = await openScratch('other', never)
  await other.close(true)
  await second.close(false)
  expect((await readdir(join(folder, 'scratch'))).sort()).toEqual(['other'])
  delete process.env.PORTLLM_SCRATCH
})

it('data is a folder below PORTLLM_DATA, and never another', async () => {
  delete process.env.PORTLLM_DATA
  await expect(dataFolder('lab/notes')).rejects.toMatchObject({ code: 'no_data', retryable: true, message: expect.stringContaining('PORTLLM_DATA') })
  process.env.PORTLLM_DATA = folder
  await mkdir(join(folder, 'lab/notes'), { recursive: true })
  expect(await dataFolder('lab/notes')).toBe(join(folder, 'lab/notes'))
  for (const name of ['lab/none', '../notes', 'lab/..', 'lab', '/etc/passwd', 'lab/notes/x']) await expect(dataFolder(name)).rejects.toMatchObject({ code: 'no_data' })
  delete process.env.PORTLLM_DATA
})
