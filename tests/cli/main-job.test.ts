import { cp, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { copyFixture, digests, startCommandLine, type CommandLine } from './command-line.ts'

let cli: CommandLine
let llama: string

beforeAll(async () => {
  cli = await startCommandLine()
  llama = await copyFixture(cli, 'llama')
  await cli.ok('org', 'create', 'lab')
  await cli.ok('org', 'create', 'hospital', '--display-name', 'The hospital')
})
afterAll(() => cli.close())

test('a model is published, evolves, and a patch of the old version is merged onto the new one', async () => {
  const base = await cli.ok('publish', join(llama, 'base'), '--name', 'lab/tiny', '--version', '1.0')
  expect(base).toMatchObject({ reference: 'lab/tiny@1.0', kind: 'model', digest: expect.stringMatching(/^sha256:/) })
  await cli.ok('publish', join(llama, 'evolved'), '--name', 'lab/tiny', '--version', '2.0', '--parent', 'lab/tiny@1.0', '--parent-kind', 'continued-pretraining')
  await cli.ok('publish', join(llama, 'patch-kind'), '--name', 'hospital/kind', '--version', '1.0.0', '--base', 'lab/tiny@1.0')
  await cli.ok('publish', join(llama, 'patch-speech'), '--name', 'hospital/speech', '--version', '1.0.0', '--base', 'lab/tiny@1.0')

  const resolution = await cli.ok('resolve', 'hospital/kind@^1', '--target', 'lab/tiny@2.0')
  expect(resolution).toMatchObject({ verdict: 'portable', merged: 'absent' })

  const merged = join(cli.folder, 'merged')
  const got = await cli.ok('get', 'lab/tiny@2.0', '--patch', 'hospital/kind', '--patch', 'hospital/speech:-0.5', '--output', merged)
  expect(got).toMatchObject({ kind: 'merged', output: merged, repaired: 0, derivation: expect.stringMatching(/^[0-9a-f]{64}$/) })

  // Without any registry, from the folders alone: the same bytes, header and derivation included.
  const local = join(cli.folder, 'local')
  const own = await cli.ok('merge', join(llama, 'evolved'), join(llama, 'patch-kind'), join(llama, 'patch-speech'), '--weight', '1', '--weight=-0.5', '--output', local, '--profile')
  expect(own.derivation).toBe(got.derivation)
  for (const phase of ['total', 'merge', 'pack', 'read', 'kernel', 'write', 'copy', 'sync']) expect(own.profile[phase], phase).toBeGreaterThan(0)
  expect(await digests(local)).toEqual(await digests(merged))
  expect(await digests(merged)).not.toEqual(await digests(join(llama, 'evolved')))
})

test('a lockfile gives the same bytes after a yank, and nothing else does', async () => {
  const lock = join(cli.folder, 'merged', 'portllm.lock')
  expect(JSON.parse(await readFile(lock, 'utf8'))).toMatchObject({
    format: 'portllm.lock/1', registry: cli.proxy.url, kind: 'merged', rules: ['lora-f32/1'], target: { reference: 'lab/tiny@2.0' },
    patches: [{ reference: 'hospital/kind@1.0.0', weight: 1 }, { reference: 'hospital/speech@1.0.0', weight: -0.5 }],
  })
  await cli.ok('yank', 'hospital/kind@1.0.0', '--reason', 'trained on the wrong labels')

  const refused = await cli.run(['get', 'lab/tiny@2.0', '--patch', 'hospital/kind', '--output', join(cli.folder, 'none'), '--json'])
  expect(refused.code).toBe(4)
  expect(refused.json.error.message).toContain('yanked')

  const again = join(cli.folder, 'again')
  await cli.ok('get', '--lock', lock, '--output', again)
  expect(await digests(again)).toEqual(await digests(join(cli.folder, 'merged')))
  expect(await readFile(join(again, 'portllm.lock'), 'utf8')).toBe(await readFile(lock, 'utf8'))

  const frozen = await cli.run(['get', 'lab/tiny@2.0', '--patch', 'hospital/kind@^1', '--patch', 'hospital/speech:-0.5', '--frozen', '--output', join(cli.folder, 'frozen')], { cwd: join(cli.folder, 'merged') })
  expect(frozen).toMatchObject({ code: 0 })
  const other = await cli.run(['get', 'lab/tiny@2.0', '--patch', 'hospital/kind@^2', '--frozen', '--output', join(cli.folder, 'other')], { cwd: join(cli.folder, 'merged') })
  expect(other.code).toBe(5)
  expect(other.stderr).toContain('hospital/kind@1.0.0')
  await cli.ok('unyank', 'hospital/kind@1.0.0')
})

test('a lockfile whose digests were changed is refused before anything is written', async () => {
  const lock = JSON.parse(await readFile(join(cli.folder, 'merged', 'portllm.lock'), 'utf8'))
  lock.tensors[0].digest = `sha256:${'0'.repeat(64)}`
  const path = join(cli.folder, 'edited.lock')
  await writeFile(path, JSON.stringify(lock))
  const refused = await cli.run(['get', '--lock', path, '--output', join(cli.folder, 'edited')])
  expect(refused.code).toBe(8)
  await expect(stat(join(cli.folder, 'edited'))).rejects.toThrow('ENOENT')
})

test('plain versions are fetched too, byte for byte', async () => {
  await cli.ok('get', 'lab/tiny@1.0', '--output', join(cli.folder, 'plain'))
  expect(await digests(join(cli.folder, 'plain'))).toEqual(await digests(join(llama, 'base')))
  const patch = await cli.ok('get', 'hospital/kind', '--output', join(cli.folder, 'patch'))
  expect(patch).toMatchObject({ kind: 'patch', derivation: null })
  expect(await digests(join(cli.folder, 'patch'))).toEqual(await digests(join(llama, 'patch-kind')))
  await cli.ok('get', '--lock', join(cli.folder, 'patch', 'portllm.lock'), '--output', join(cli.folder, 'patch-again'))
})

test('an output folder that is not empty is kept, unless --force', async () => {
  const output = join(cli.folder, 'patch')
  const before = await digests(output)
  const refused = await cli.run(['get', 'lab/tiny@1.0', '--output', output])
  expect(refused).toMatchObject({ code: 5, stderr: expect.stringContaining('--force') })
  expect(await digests(output)).toEqual(before)
  await cli.ok('get', 'lab/tiny@1.0', '--output', output, '--force')
  expect(await digests(output)).toEqual(await digests(join(llama, 'base')))
})

test('what a folder says in portllm.json need not be said again', async () => {
  const folder = join(cli.folder, 'adapter')
  await cp(join(llama, 'patch-speech'), folder, { recursive: true })
  await cli.ok('init', folder, '--name', 'hospital/other', '--version', '1.0.0', '--base', 'lab/tiny@1.0', '--description', 'speech again')
  expect(await cli.run(['init', folder, '--name', 'hospital/other', '--version', '1.0.0', '--base', 'lab/tiny@1.0'])).toMatchObject({ code: 5 })
  const dry = await cli.ok('publish', folder, '--dry-run')
  expect(dry).toMatchObject({ reference: 'hospital/other@1.0.0', dryRun: true })
  expect(await cli.run(['info', 'hospital/other'])).toMatchObject({ code: 4 })
  const published = await cli.ok('publish', folder)
  // portllm.json is not part of what is published, so the digest is that of the adapter alone.
  const speech = await cli.ok('info', 'hospital/speech@1.0.0')
  expect(published.digest).toBe(speech.digest)
  expect(published.digest).toBe(dry.digest)
  expect(await cli.ok('info', 'hospital/other')).toMatchObject({ description: 'speech again' })
})

test('the other commands', async () => {
  expect(await cli.ok('whoami')).toMatchObject({ user: { name: 'admin', isAdmin: true } })
  expect(await cli.ok('org', 'ls')).toEqual(expect.arrayContaining([expect.objectContaining({ name: 'hospital', displayName: 'The hospital' })]))
  const found = await cli.ok('search', 'kind')
  expect(found.patches).toMatchObject([{ organization: 'hospital', name: 'kind' }])
  expect((await cli.ok('search', '--base', 'lab/tiny')).models).toEqual([])
  expect(await cli.ok('info', 'lab/tiny@2.0')).toMatchObject({ kind: 'model', parent: { reference: 'lab/tiny@1.0' } })

  expect(await cli.ok('dist-tag', 'add', 'hospital/kind@1.0.0', 'stable')).toMatchObject({ tag: 'stable' })
  expect(await cli.ok('dist-tag', 'ls', 'hospital/kind')).toEqual({ latest: '1.0.0', stable: '1.0.0' })
  expect((await cli.ok('resolve', 'hospital/kind@stable', '--target', 'lab/tiny@1.0')).verdict).toBe('identical')
  await cli.ok('dist-tag', 'rm', 'hospital/kind', 'stable')
  expect(await cli.ok('dist-tag', 'ls', 'hospital/kind')).toEqual({ latest: '1.0.0' })

  await cli.ok('deprecate', 'hospital/kind@1.0.0', 'use 2.x')
  const warned = await cli.run(['resolve', 'hospital/kind', '--target', 'lab/tiny@2.0'])
  expect(warned).toMatchObject({ code: 0, stdout: expect.stringContaining('use 2.x') })
  expect(warned.stdout).toContain('portable-with-warnings')
  await cli.ok('undeprecate', 'hospital/kind@1.0.0')

  const jobs = await cli.ok('jobs', 'ls', '--kind', 'merge')
  expect(jobs).toMatchObject([{ kind: 'merge', state: 'succeeded' }])
  expect(await cli.ok('jobs', 'show', jobs[0].id)).toMatchObject({ id: jobs[0].id })
  expect(await cli.ok('jobs', 'wait', jobs[0].id)).toMatchObject({ state: 'succeeded' })
  const got = JSON.parse(await readFile(join(cli.folder, 'merged', 'portllm.lock'), 'utf8'))
  expect(await cli.ok('info', got.derivation)).toMatchObject({ id: got.derivation, state: 'ready' })

  const token = await cli.ok('token', 'create', 'ci', '--scope', 'read', '--organization', 'lab', '--expires', '2099-01-01')
  const env = { PORTLLM_TOKEN: token.token }
  expect((await cli.run(['org', 'create', 'mine', '--json'], { env })).code).toBe(6)
  expect(await cli.ok('token', 'ls')).toEqual(expect.arrayContaining([expect.objectContaining({ id: token.id, scopes: ['read'] })]))
  await cli.ok('token', 'revoke', token.id)
  expect(await cli.run(['whoami'], { env })).toMatchObject({ code: 6 })
})
