import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { startServer } from '../../api/start-server.ts'
import { fileList, newOrganization, putFiles, startTestRegistry, STORE } from './harness.ts'
import { storedObjects } from './stored-objects.ts'

const data = await mkdtemp(join(tmpdir(), 'portllm-test-'))
afterAll(() => rm(data, { recursive: true, force: true }))

it(`a server that starts again keeps what drafts have${STORE === 'directory' ? ', and throws away what nobody can use' : ''}`, async () => {
  const registry = await startTestRegistry({ data })
  try {
    const org = await newOrganization(registry)
    const params = { org, name: 'base', version: 'v1' }
    const files = { a: 'kept', b: 'missing' }
    const draft = await registry.ok('draftModelVersion', { params, body: { files: fileList(files) } })
    await putFiles({ files: draft.files.slice(0, 1) }, files)
    const objects = storedObjects(registry)
    const kept = await objects.keys('uploads')
    expect(kept).toHaveLength(1)
    await registry.server.close()

    // A bucket may have other servers: there, garbage collection removes it after its period of grace.
    if (STORE === 'directory') await leaveOrphans()

    const again = await startServer(registry.config, { log: registry.server.dependencies.log, onFatal() {} })
    try {
      expect(again.bootstrapToken).toBeNull()
      expect(await objects.keys('uploads')).toEqual(kept)
      expect(await objects.keys('attempts')).toEqual([])
      expect(await objects.keys('incoming')).toEqual([])
      const response = await fetch(`${again.url}/v1/models/${org}/base/v1/upload`, { headers: { Authorization: `Bearer ${registry.adminToken}` } })
      const upload = (await response.json()) as any
      expect(upload.files.map((file: any) => file.parts[0].stored)).toEqual([true, false])
      // Signed with the same key as before the restart.
      expect(await putFiles({ files: [{ ...draft.files[1], parts: [{ ...draft.files[1].parts[0], url: draft.files[1].parts[0].url.replace(registry.url, again.url) }] }] }, files)).toEqual([200])
    } finally {
      await again.close()
    }
  } finally {
    await registry.close()
  }
})

async function leaveOrphans(): Promise<void> {
  const orphan = crypto.randomUUID()
  await mkdir(join(data, 'uploads', `${orphan}.parts`))
  await writeFile(join(data, 'uploads', `${orphan}.partial`), 'x')
  await mkdir(join(data, 'attempts', orphan, '0'), { recursive: true })
  await mkdir(join(data, 'incoming'), { recursive: true })
  await writeFile(join(data, 'incoming', 'half'), 'x')
}
