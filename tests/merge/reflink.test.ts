import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeLlamaAdapter, writeLlamaModel } from '../../bench/llama-model.ts'
import { runMerge } from '../../bench/merge-run.ts'
import { mountReflinkDisk, type ReflinkDisk } from '../setup/reflink.ts'
import { runCommand } from '../setup/registry.ts'

const SHAPE = { hidden: 512, layers: 4, heads: 8, keyValueHeads: 4, intermediate: 1024, vocabulary: 8000, shards: 2 }

let plain: string
let disk: ReflinkDisk | null
beforeAll(async () => {
  plain = await mkdtemp(join(tmpdir(), 'portllm-no-reflink-'))
  disk = await mountReflinkDisk(320)
  for (const folder of disk === null ? [plain] : [plain, disk.folder]) {
    await writeLlamaModel(join(folder, 'model'), SHAPE)
    await writeLlamaAdapter(join(folder, 'adapter'), SHAPE, { rank: 4, alpha: 8, targets: ['q_proj', 'v_proj'] })
  }
})
afterAll(async () => {
  await disk?.unmount()
  await rm(plain, { recursive: true, force: true })
})

const digest = async (folder: string) => Promise.all((await readdir(folder)).sort().map(async (name) => [name, Buffer.from(await readFile(join(folder, name))).toString('base64')]))

async function localMerge(folder: string) {
  const { code, stdout, stderr } = await runCommand(null, ['merge', join(folder, 'model'), join(folder, 'adapter'), '--output', join(folder, 'merged'), '--json', '--quiet', '--profile'], { configFolder: join(plain, 'config') })
  expect(code, stderr).toBe(0)
  return JSON.parse(stdout) as { bytes: number; bytesCloned: number }
}

test('a local merge shares what does not change with the model where the file system can, and is the same bytes where it cannot', async () => {
  const copied = await localMerge(plain)
  expect(copied.bytesCloned).toBeLessThan(copied.bytes)
  if (disk === null) {
    console.warn('no XFS could be mounted here: only the copy was tested')
    return
  }
  const cloned = await localMerge(disk.folder)
  // q and v are 6% of this model, and where a tensor that changes begins within a block the block is copied.
  expect(cloned.bytesCloned).toBeGreaterThan(0.85 * cloned.bytes)
  expect(await digest(join(disk.folder, 'merged'))).toEqual(await digest(join(plain, 'merged')))

  const run = await runMerge(join(disk.folder, 'model'), join(disk.folder, 'adapter'), join(disk.folder, 'run'), 'complete', false)
  expect(run.cloned).toBe(true)
})
