import { afterAll, beforeAll, expect, it } from 'vitest'
import { startFileFixture, type FileFixture } from '../contract/file-fixture.ts'
import { makeVirtualFile, pull } from './memory.ts'

const MIB = 1024 * 1024
/** Above an idle workerd. `npm run campaign:edge-memory` holds the same bound at 2.2 GB. */
const MAX_GROWTH_BYTES = 32 * MIB

let fixture: FileFixture
beforeAll(async () => { fixture = await startFileFixture() })
afterAll(() => fixture.close())

it('a merged model of half a gigabyte goes through workerd in constant memory, also to a reader that rests', async () => {
  const warm = await makeVirtualFile(fixture, 64 * MIB)
  expect((await pull(warm.url)).sha256).toBe(warm.sha256)
  const file = await makeVirtualFile(fixture, 512 * MIB)
  const { bytes, sha256, seconds, idleBytes, peakBytes } = await pull(file.url, { restMs: 2_000 })
  console.log(`${bytes} bytes of ${file.extents} extents in ${seconds.toFixed(1)} s; workerd: ${(idleBytes / MIB).toFixed(0)} MiB before, ${(peakBytes / MIB).toFixed(0)} MiB at most`)
  expect([bytes, sha256]).toEqual([file.size, file.sha256])
  expect(peakBytes - idleBytes).toBeLessThan(MAX_GROWTH_BYTES)
})
