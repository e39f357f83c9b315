import { execFile } from 'node:child_process'
import { appendFile, cp, mkdtemp, readdir, readFile, rename, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exportFrom, summaryOf } from '../../api/commands/export.ts'
import { collectOf } from '../../api/commands/gc.ts'
import { importInto } from '../../api/commands/import.ts'
import { scrubOf } from '../../api/commands/scrub.ts'
import type { ServerConfig } from '../../api/config.ts'
import { readExport } from '../../api/services/transfer/read-manifest.ts'
import { publish, putFiles, runIngest } from '../contract/harness.ts'
import { startCeph } from '../setup/ceph.ts'
import { findBinaries, startPostgres, type TestPostgres } from '../setup/postgres.ts'
import { startProgram } from '../setup/server-process.ts'
import { configOf, fillRegistry, portllmServer, portllmServerJson, servedAnswers, type Kept } from './kept-registry.ts'

let postgres: TestPostgres
let folder: string
let kept: Kept
let summary: unknown
let server: ServerConfig
const at = (name: string) => join(folder, name)
const exported = async (config: ServerConfig, name: string) => summaryOf(await exportFrom(config, { folder: at(name) }))
const imported = async (config: ServerConfig, name: string) => summaryOf(await importInto(config, { folder: at(name) }))
/** An empty registry on PostgreSQL. */
const emptyServer = async (name: string) => configOf(at(name), { DATABASE_URL: await postgres.createDatabase() })

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-transfer-'))
  postgres = await startPostgres()
  kept = await fillRegistry({ data: at('embedded') })
  summary = await portllmServerJson(['export', '--data', at('embedded'), at('export-1')])
  server = await emptyServer('server')
}, 300_000)
afterAll(async () => {
  await postgres.stop()
  await rm(folder, { recursive: true, force: true })
})

it('a registry moves from embedded to a server and back: the same exports, answers, bytes and tokens; jobs and drafts go on', async () => {
  expect(Object.values(kept.answers).filter((answer) => answer.startsWith('200')).length).toBeGreaterThan(40)
  expect(Object.entries(kept.answers).filter(([path]) => path.startsWith('/v1/whoami')).map(([, answer]) => answer.slice(0, 3))).toEqual(['200', '200', '401'])

  expect(await portllmServerJson(['import', '--data', at('server'), at('export-1')], { DATABASE_URL: server.databaseUrl! })).toEqual(summary)
  expect(await exported(server, 'export-2')).toEqual(summary)
  expect(await contentOf(at('export-2'))).toEqual(await contentOf(at('export-1')))
  expect(await servedAnswers(server, kept)).toEqual(kept.answers)

  const back = configOf(at('back'))
  expect(await imported(back, 'export-2')).toEqual(summary)
  expect(await exported(back, 'export-3')).toEqual(summary)
  const answers = await servedAnswers(back, kept, async (caller) => {
    const draft = { org: kept.org, name: 'tiny', version: 'draft' }
    expect(await putFiles(await caller.ok('getModelUpload', { params: draft }), { 'sent.bin': 'these bytes have arrived', 'later.bin': 'these have not' })).toEqual([200])
    expect((await runIngest(caller)).status).toBe(204)
    expect((await caller.ok('getModelVersion', { params: { ...draft, version: 'waiting' } })).state).toBe('published')
    await caller.ok('completeModelUpload', { params: draft })
    expect((await runIngest(caller)).status).toBe(204)
  })
  expect(answers).toEqual(kept.answers)
}, 300_000)

it('moves to a server with an S3', async () => {
  const ceph = await startCeph()
  try {
    const client = new S3Client({ endpoint: ceph.endpoint, region: 'us-east-1', forcePathStyle: true, credentials: ceph })
    await client.send(new CreateBucketCommand({ Bucket: 'portllm' }))
    const config = configOf(at('s3'), {
      DATABASE_URL: await postgres.createDatabase(), PORTLLM_S3_BUCKET: 'portllm', PORTLLM_S3_ENDPOINT: ceph.endpoint, PORTLLM_S3_REGION: 'us-east-1',
      PORTLLM_S3_ACCESS_KEY_ID: ceph.accessKeyId, PORTLLM_S3_SECRET_ACCESS_KEY: ceph.secretAccessKey, PORTLLM_S3_PATH_STYLE: 'true',
    })
    expect(await imported(config, 'export-1')).toEqual(summary)
    expect(await readdir(at('s3'))).not.toContain('blobs')
    expect(await exported(config, 'export-s3')).toEqual(summary)
    expect(await contentOf(at('export-s3'))).toEqual(await contentOf(at('export-1')))
    expect(await servedAnswers(config, kept)).toEqual(kept.answers)
  } finally {
    await ceph.stop()
  }
}, 300_000)

it('a backup of the database and then of the blobs serves the same, whatever was let go of and collected between the two', async () => {
  const original = await emptyServer('original')
  await imported(original, 'export-1')
  for (const path of await blobFiles(at('original'))) await utimes(path, new Date(0), new Date(0))
  const bin = await findBinaries()
  await promisify(execFile)(join(bin, 'pg_dump'), ['--format=custom', `--file=${at('backup.dump')}`, original.databaseUrl!])
  const [, materialised] = kept.derivations
  await servedAnswers(original, kept, async (caller) => {
    expect((await caller.ok('setDerivationStorage', { params: { id: materialised! }, body: { storage: 'computed' }, headers: { Prefer: 'wait=60' } })).storage).toBe('computed')
  })
  expect((await collectOf(original, {})).removed.blobs).toEqual({ objects: 0, bytes: 0 })
  await cp(at('original'), at('restored'), { recursive: true, filter: (path) => !path.includes('server.') })

  const restored = await emptyServer('restored')
  await promisify(execFile)(join(bin, 'pg_restore'), ['--no-owner', `--dbname=${restored.databaseUrl}`, at('backup.dump')])
  expect(await scrubOf(restored, {})).toEqual({ blobs: (summary as { blobs: { count: number } }).blobs.count, bytes: expect.any(Number), damaged: [] })
  expect(await exported(restored, 'export-restored')).toEqual(summary)
  expect(await servedAnswers(restored, kept)).toEqual(kept.answers)

  // Without a grace the backup would have been no backup.
  await collectOf(original, { graceSeconds: 0 })
  expect((await blobFiles(at('original'))).length).toBeLessThan((await blobFiles(at('restored'))).length)
}, 300_000)

describe('what whoever operates a registry is told', () => {
  const run = (...args: string[]) => portllmServer([...args, '--data', at('server')], { DATABASE_URL: server.databaseUrl! })

  it('by gc: what would go', async () => {
    await writeFile(join(at('server'), 'uploads', crypto.randomUUID()), '12345')
    expect(await run('gc', '--dry-run', '--grace', '0')).toMatchObject({ code: 0, stdout: 'would remove 1 staged uploads, 5 B\n' })
  })

  it('by scrub: what is damaged and what that hits, with an exit code of its own', async () => {
    const [path] = await blobFiles(at('server'))
    await appendFile(path!, 'x')
    const { code, stdout } = await run('scrub')
    expect([code, stdout]).toEqual([5, expect.stringMatching(/^long: blobs\/sha256\/.* bytes, not .*\n {2}hits .*tiny@.*\n30 blobs, .*: 1 damaged\.\n$/s)])
    await truncate(path!, (await stat(path!)).size - 1)
    expect(await run('scrub', '--rate', '500M')).toMatchObject({ code: 0, stdout: expect.stringContaining('30 blobs, 4.76 MB: all are whole.') })
  })
})

describe('an export', () => {
  it('is for its owner alone, and holds no token and nothing of the deployment', async () => {
    for (const name of await readdir(at('export-1'), { recursive: true })) {
      const found = await stat(join(at('export-1'), name))
      expect(found.mode & 0o777, name).toBe(found.isDirectory() ? 0o700 : 0o600)
    }
    const texts = Object.values(await contentOf(at('export-1'))).join('')
    expect(texts).toMatch(/signing-key/)
    for (const token of Object.values(kept.tokens)) expect(texts).not.toContain(token)
    expect(texts).not.toContain('"garbage-collection"')
  })

  it('is not written over another, nor over what is no export, nor where there is no registry', async () => {
    await expect(exported(server, 'export-1')).rejects.toThrow('There is an export in')
    await expect(exported(server, 'server')).rejects.toThrow('is not empty')
    expect(await portllmServer(['export', '--data', at('none'), at('export-none')])).toMatchObject({ code: 1, stderr: `There is no registry in ${at('none')}: name its folder with --data, or its database with DATABASE_URL.\n` })
  })

  it('that was interrupted goes on with the blobs that it lacks or that are damaged', async () => {
    await cp(at('export-1'), at('export-part'), { recursive: true, preserveTimestamps: true })
    await rm(join(at('export-part'), 'manifest.json'))
    await writeFile(join(at('export-part'), 'unfinished'), '')
    const [lost, damaged, whole] = await blobFiles(at('export-part'))
    await rm(lost!)
    await appendFile(damaged!, 'x')
    const before = await stat(whole!)
    expect(await exported(server, 'export-part')).toMatchObject({ blobs: (summary as { blobs: object }).blobs })
    expect((await stat(whole!)).mtimeMs).toBe(before.mtimeMs)
    for (const path of [lost!, damaged!]) expect((await readFile(path)).equals(await readFile(path.replace('export-part', 'export-1')))).toBe(true)
  })

  it('of a registry that is written to meanwhile is of one moment', async () => {
    const busy = await emptyServer('busy')
    await imported(busy, 'export-1')
    await servedAnswers(busy, kept, async (caller) => {
      let ended = false
      const publishing = (async () => {
        for (let n = 0; !ended; n++) await publish(caller, { kind: 'dataset', org: kept.org, name: 'busy', version: `1.0.${n}`, files: { 'train.jsonl': `{"text":"${n}"}\n` } })
      })()
      for (const name of ['busy-1', 'busy-2', 'busy-3']) await exported(busy, name)
      ended = true
      await publishing
    })
    // A row that refers to one of a later moment would not go in.
    for (const name of ['busy-1', 'busy-2', 'busy-3']) await imported(await emptyServer(`${name}-again`), name)
    expect((await contentOf(at('busy-3')))['tables/dataset_versions.jsonl']!.split('\n').length).toBeGreaterThan((await contentOf(at('busy-1')))['tables/dataset_versions.jsonl']!.split('\n').length)
  }, 120_000)

  it('of a registry that lacks a blob, or has a damaged one, fails and names it', async () => {
    const [lost, damaged] = await blobFiles(at('server'))
    await rename(lost!, `${lost}.away`)
    await expect(exported(server, 'export-lost')).rejects.toThrow(/registry is damaged.*[0-9a-f]{64}.*scrub/)
    await rename(`${lost}.away`, lost!)
    const bytes = await readFile(damaged!)
    await writeFile(damaged!, bytes.fill(bytes[0]! ^ 1, 0, 1))
    await expect(exported(server, 'export-damaged')).rejects.toThrow(/blob [0-9a-f]{64} is damaged/)
    await writeFile(damaged!, bytes.fill(bytes[0]! ^ 1, 0, 1))
  })
})

describe('an import', () => {
  it.each([
    ['an unknown format', 'manifest.json', (text: string) => text.replace('portllm.export/1', 'portllm.export/2'), /has the format "portllm.export\/2"; this version reads portllm.export\/1/],
    ['an earlier schema', 'manifest.json', (text: string) => text.replace(/"schema": "[^"]*"/, '"schema": "0004_trainings"'), /schema 0004_trainings .*Import it with that version/],
    ['a newer schema', 'manifest.json', (text: string) => text.replace(/"schema": "[^"]*"/, '"schema": "0999_future"'), /schema 0999_future .*does not know the other/],
    ['a manifest that says more', 'manifest.json', (text: string) => text.replace('{', '{"more": 1,'), /is wrong/],
    ['a manifest that was changed', 'manifest.json', (text: string) => text.replace(/"lines": \d+/, '"lines": 12345'), /was changed after it was written/],
    ['a manifest that ends early', 'manifest.json', (text: string) => text.slice(0, -100), /is no JSON/],
    ['a table that was changed', 'tables/tokens.jsonl', (text: string) => text.replace('"name"', '"Name"'), /tables\/tokens.jsonl .* is damaged/],
    ['a table that ends early', 'tables/files.jsonl', (text: string) => text.slice(0, -10), /tables\/files.jsonl .* is damaged/],
  ])('with %s is refused, by name', async (_, file, change, message) => {
    await expect(readExport(at(await changed(file, change)))).rejects.toThrow(message)
  })

  it('of a damaged blob is refused, and leaves no registry; of the whole one it can then be begun again', async () => {
    const [original] = await blobFiles(at('export-1'))
    const name = await changed(original!.slice(at('export-1').length + 1), (text) => `${text.slice(0, -1)}${text.endsWith('x') ? 'y' : 'x'}`, 'latin1')
    const again = await emptyServer('again')
    await expect(imported(again, name)).rejects.toThrow(/blobs\/sha256.*cannot be imported/)
    await expect(exported(again, 'export-nothing')).resolves.toMatchObject({ rows: 1 }) // the key of its own store
    expect(await imported(again, 'export-1')).toEqual(summary)
    await expect(imported(again, 'export-1')).rejects.toThrow('This registry is not empty')
  })

  it('that was killed can be begun again', async () => {
    const config = await emptyServer('killed')
    const killed = startProgram('api/server.ts', ['import', '--data', at('killed'), at('export-1')], { DATABASE_URL: config.databaseUrl! })
    while ((await readdir(join(at('killed'), 'blobs'), { recursive: true }).catch(() => [])).length < 10) await sleep(5)
    killed.child.kill('SIGKILL')
    expect((await killed.ended).signal).toBe('SIGKILL')
    expect(await imported(config, 'export-1')).toEqual(summary)
    expect(await exported(config, 'export-killed')).toEqual(summary)
  })

  async function changed(file: string, change: (text: string) => string, encoding: BufferEncoding = 'utf8'): Promise<string> {
    const name = `export-${crypto.randomUUID()}`
    await cp(at('export-1'), at(name), { recursive: true })
    const text = await readFile(join(at(name), file), encoding)
    expect(change(text)).not.toBe(text)
    await writeFile(join(at(name), file), change(text), encoding)
    return name
  }
})

/** Every file of an export but its blobs and its manifest, which tells when it was written. */
async function contentOf(path: string): Promise<Record<string, string>> {
  const names = (await readdir(path, { recursive: true })).filter((name) => name.endsWith('.jsonl')).sort()
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await readFile(join(path, name), 'utf8')] as const)))
}

async function blobFiles(path: string): Promise<string[]> {
  const names = await readdir(join(path, 'blobs'), { recursive: true })
  return names.filter((name) => /[0-9a-f]{64}$/.test(name)).sort().map((name) => join(path, 'blobs', name))
}
