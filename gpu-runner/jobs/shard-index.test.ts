import { expect, test } from 'vitest'
import { Findings } from './findings.ts'
import { checkShards } from './shard-index.ts'

test('an index of hundreds of thousands of tensors that are not there is refused in few words', () => {
  const names = Array.from({ length: 200_000 }, (_, index) => [`tensor.${index}`, 'model-00001-of-00001.safetensors'])
  const findings = new Findings()
  checkShards(new Map([['model.safetensors.index.json', JSON.stringify({ weight_map: Object.fromEntries(names) })]]), [], [], findings)
  const listed = findings.list()
  expect(listed).toHaveLength(21)
  expect(listed[0]).toMatchObject({ code: 'index-missing-file', tensor: 'tensor.0' })
  expect(listed.at(-1)).toMatchObject({ message: '199980 more like the 20 listed (index-missing-file).' })
})
