import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import type { Database } from '../../db/database.ts'
import type { TensorMerger } from '../ports/tensor-merger.ts'
import { createConsoleLog } from '../ports/log.ts'
import { createMetrics } from './metrics.ts'

it('counts what is asked of the merge core, and what it refuses', async () => {
  let isBroken = false
  const merger: TensorMerger = {
    obstacle: async () => null,
    open: async () => {
      if (isBroken) throw new Error('no core')
      return new ReadableStream()
    },
  }
  const metrics = createMetrics(createConsoleLog())
  const counted = metrics.countMerges(merger)
  const asked = { derivation: 'd', locate: async () => [], tensor: 0, range: { offset: 10, length: 1000 }, signal: new AbortController().signal, reuse: false }
  await counted.open(asked)
  await counted.open(asked)
  isBroken = true
  await expect(counted.open(asked)).rejects.toThrow('no core')
  const text = await metrics.text()
  expect(text).toContain('portllm_merge_on_read_ranges_total{outcome="opened"} 2\n')
  expect(text).toContain('portllm_merge_on_read_ranges_total{outcome="failed"} 1\n')
  expect(text).toContain('portllm_merge_on_read_bytes_total 2000\n')
})

it('are those of docs/operations.md, also where the database does not answer', async () => {
  const lines: object[] = []
  const quiet = { ...createConsoleLog(), warn: (fields: object) => void lines.push(fields) }
  const metrics = createMetrics(quiet)
  const broken = { select: () => { throw new Error('no database') }, execute: () => { throw new Error('no database') } } as unknown as Database
  metrics.watchDatabase({ db: broken, connections: { applicationName: 'x', max: 10 } })
  const rows = [...(await metrics.text()).matchAll(/^# HELP (portllm_\S+) (.*)\.$/gm)].map(([, name, help]) => `| \`${name}\` | ${help} |`)
  expect(rows).toHaveLength(9)
  expect(await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')).toContain([...rows, ''].join('\n'))
  expect(lines).toHaveLength(3)
})
