import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ALL_LINEARS } from '../../bench/llama-model.ts'
import { mergeSparseModel, writeSparseModel } from './sparse-model.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-7b-'))
  await writeSparseModel(join(folder, 'model'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

it('merges into the shape of a 7B model with at most 64 MB more than Node has, and leaves holes holes', async () => {
  const result = await mergeSparseModel(join(folder, 'model'), folder, { rank: 16, targets: ALL_LINEARS, layers: 1 })
  expect(result.bytes).toBeGreaterThan(13.4e9)
  // One layer of 32.
  expect(result.bytesOnDisk).toBeGreaterThan(0.4e9)
  expect(result.bytesOnDisk).toBeLessThan(0.45e9)
  expect(result.merging.anonymous - result.idle.anonymous).toBeLessThan(64e6)
  expect(result.merging.resident).toBeLessThan(256e6)
}, 300_000)
