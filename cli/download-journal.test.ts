import { appendFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { JOURNAL_NAME, openJournal } from './download-journal.ts'

let folder: string
beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), 'portllm-journal-'))))
afterEach(() => rm(folder, { recursive: true }))

test('ranges outlive the process, and dropped ones do not', async () => {
  const first = (await openJournal(folder, 'merged:1'))!
  await first.add('a b.safetensors', 0, 10)
  await first.add('a b.safetensors', 10, 20)
  await first.drop('a b.safetensors', 10, 20)
  await first.close()
  const second = (await openJournal(folder, 'merged:1'))!
  expect(second.has('a b.safetensors', 0, 10)).toBe(true)
  expect(second.has('a b.safetensors', 10, 20)).toBe(false)
  await second.close()
})

test('a line that a crash cut off does not count, and does not spoil the next', async () => {
  const first = (await openJournal(folder, 'merged:1'))!
  await first.add('a', 0, 10)
  await first.close()
  await appendFile(join(folder, JOURNAL_NAME), '+10 20 a')
  const second = (await openJournal(folder, 'merged:1'))!
  expect(second.has('a', 10, 20)).toBe(false)
  await second.add('b', 0, 5)
  await second.close()
  const third = (await openJournal(folder, 'merged:1'))!
  expect([third.has('a', 0, 10), third.has('b', 0, 5)]).toEqual([true, true])
  await third.close()
})

test('the journal of something else is none', async () => {
  await (await openJournal(folder, 'merged:1'))!.close()
  expect(await openJournal(folder, 'merged:2')).toBeNull()
})
