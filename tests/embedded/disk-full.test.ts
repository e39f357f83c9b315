import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { fileList, newOrganization, putFiles, startTestRegistry, type TestRegistry } from '../contract/harness.ts'

let registry: TestRegistry
beforeAll(async () => { registry = await startTestRegistry() })
afterAll(() => registry.close())

it('a disk that is full is named in the answer, and nothing is left half-written', async () => {
  const org = await newOrganization(registry)
  const params = { org, name: 'base', version: 'v1' }
  const files = { 'model.safetensors': new Uint8Array(3_000_000) }
  const draft = await registry.ok('draftModelVersion', { params, body: { files: fileList(files) } })
  const [{ url, headers }] = draft.files[0].parts
  const full = await withFullDisk(() => fetch(url, { method: 'PUT', headers, body: files['model.safetensors'] }))
  const { error } = (await full.json()) as { error: { code: string; message: string } }
  expect([full.status, error.code]).toEqual([507, 'disk_full'])
  expect(error.message).toContain(registry.data)
  expect(await readdir(join(registry.data, 'incoming'))).toEqual([])
  expect((await registry.ok('getModelUpload', { params })).files[0].parts[0].stored).toBe(false)
  expect(await putFiles(draft, files)).toEqual([200])
})

/** Every write to a file past its first megabyte fails as on a full disk. */
async function withFullDisk<T>(work: () => Promise<T>): Promise<T> {
  const probe = await open(join(registry.data, 'probe'), 'w')
  const prototype = Object.getPrototypeOf(probe)
  await probe.close()
  const write = prototype.write
  prototype.write = function (buffer: Uint8Array, offset: number, length: number, position: number) {
    if (position > 1_000_000) return Promise.reject(Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' }))
    return write.call(this, buffer, offset, length, position)
  }
  try {
    return await work()
  } finally {
    prototype.write = write
  }
}
