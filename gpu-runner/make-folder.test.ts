import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { makeFolder } from './make-folder.ts'

const folder = await mkdtemp(join(tmpdir(), 'portllm-folder-'))
afterAll(() => rm(folder, { recursive: true }))

test('a folder is made with those above it, in its mode, and may be there already, or be made twice at once', async () => {
  const deep = join(folder, 'a', 'b', 'c')
  await Promise.all([makeFolder(deep, 0o700), makeFolder(deep, 0o700)])
  await makeFolder(deep, 0o700)
  for (const path of [deep, join(folder, 'a')]) expect((await stat(path)).mode & 0o777).toBe(0o700)
})

test.each([['/proc/portllm/a', 'ENOENT'], ['/dev/null/a', 'ENOTDIR']])('%s fails at once with %s', async (path, code) => {
  await expect(makeFolder(path)).rejects.toMatchObject({ code })
})

test('a file in its place is no folder', async () => {
  await writeFile(join(folder, 'file'), '')
  await expect(makeFolder(join(folder, 'file'))).rejects.toMatchObject({ code: 'EEXIST' })
})
