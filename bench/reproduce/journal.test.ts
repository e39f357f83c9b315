import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openJournal, type JournalRow } from './journal.ts'

const ROW: JournalRow = { key: 'a', id: 'alone/0', kind: 'alone', at: '2026-01-01T00:00:00Z', seconds: 1, load: 0, result: { scores: [] } }
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-journal-'))
})
afterEach(() => rm(folder, { recursive: true }))

test('what was appended is there when it is opened again', async () => {
  const path = join(folder, 'results.jsonl')
  await (await openJournal(path)).append(ROW)
  expect((await openJournal(path)).rows).toEqual(new Map([['a', ROW]]))
})

test('a line that was cut off by a kill is as if it had not been written, and what follows it is whole', async () => {
  const path = join(folder, 'results.jsonl')
  await writeFile(path, `${JSON.stringify(ROW)}\n{"key":"b","id":"evol`)
  const journal = await openJournal(path)
  expect([...journal.rows.keys()]).toEqual(['a'])
  // It may be another process that is writing.
  expect(await readFile(path, 'utf8')).toContain('"evol')
  await journal.append({ ...ROW, key: 'b' })
  expect([...(await openJournal(path)).rows.keys()]).toEqual(['a', 'b'])
  expect(await readFile(path, 'utf8')).not.toContain('"evol')
})
