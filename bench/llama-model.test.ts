import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { loadCore } from '../gpu-runner/core/core.ts'
import { MERGEABLE_DTYPES } from '../patch/dtype.ts'
import { parseHeader } from '../patch/safetensors.ts'
import { ALL_LINEARS, LLAMA_SHAPES, llamaTensors, writeLlamaAdapter, writeLlamaModel } from './llama-model.ts'

test('a tiny model is sound: three shards, an index of every tensor, finite values, and a seed that matters', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-llama-'))
  try {
    const core = await loadCore()
    await writeLlamaModel(join(folder, 'a'), LLAMA_SHAPES.tiny)
    await writeLlamaModel(join(folder, 'b'), LLAMA_SHAPES.tiny, { seed: 2 })
    const files = (await readdir(join(folder, 'a'))).filter((name) => name.endsWith('.safetensors'))
    expect(files).toHaveLength(3)
    const names = []
    for (const file of files) {
      const bytes = await readFile(join(folder, 'a', file))
      const { tensors, dataOffset } = parseHeader(bytes, bytes.length)
      names.push(...tensors.map(({ name }) => name))
      expect(await core.countNonFinite(bytes.subarray(dataOffset), 'BF16')).toBe(0)
      expect(bytes.equals(await readFile(join(folder, 'b', file)))).toBe(false)
    }
    const index = JSON.parse(await readFile(join(folder, 'a', 'model.safetensors.index.json'), 'utf8'))
    expect(names.sort()).toEqual(Object.keys(index.weight_map).sort())
    expect(names).toHaveLength(llamaTensors(LLAMA_SHAPES.tiny).length)

    for (const dtype of MERGEABLE_DTYPES) {
      await writeLlamaAdapter(join(folder, dtype), LLAMA_SHAPES.tiny, { rank: 4, alpha: 8, targets: ALL_LINEARS, dtype })
      const bytes = await readFile(join(folder, dtype, 'adapter_model.safetensors'))
      const { tensors, dataOffset } = parseHeader(bytes, bytes.length)
      expect(tensors).toHaveLength(2 * 7 * LLAMA_SHAPES.tiny.layers)
      expect(await core.countNonFinite(bytes.subarray(dataOffset), dtype)).toBe(0)
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})
