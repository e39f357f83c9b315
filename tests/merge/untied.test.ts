import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, expect, test } from 'vitest'
import { pythonPath } from '../setup/python.ts'
import { ROOT } from '../setup/registry.ts'
import { compareVariant, makeVariants } from './variants.ts'

const folder = await mkdtemp(join(tmpdir(), 'portllm-untied-'))
const [variant] = await makeVariants(folder, ['untied-sharded'])
const { merges } = variant!
afterAll(() => rm(folder, { recursive: true, force: true }))

async function load(model: string): Promise<any> {
  const { stdout } = await promisify(execFile)(await pythonPath(), [join(ROOT, 'tests/python/oracle.py'), 'load', '--model', model])
  return JSON.parse(stdout)
}

test('`portllm merge --tied untie`: transformers loads the new head beside the embedding, each with the numbers of its file', async () => {
  const merge = merges.find(({ on }) => on === 'evolved')!
  const output = join(folder, 'merged')
  expect(await compareVariant(variant!, merge, output)).toMatchObject({ unexplained: 0 })
  const loading = { missing_keys: [], unexpected_keys: [], mismatched_keys: [] }
  const before = await load(merge.model)
  expect(before).toMatchObject({ loading, tie_word_embeddings: true, shares_head: true })
  expect(await load(output)).toEqual({ loading, tie_word_embeddings: false, shares_head: false, tensors: before.tensors + 1, differing: [] })
})
