import { cp, mkdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { copyFixture, startCommandLine, type CommandLine } from './command-line.ts'

let cli: CommandLine
let llama: string

beforeAll(async () => {
  cli = await startCommandLine()
  llama = await copyFixture(cli, 'llama')
  await cli.ok('org', 'create', 'lab')
  await cli.ok('publish', join(llama, 'base'), '--name', 'lab/tiny', '--version', '1.0')
})
afterAll(() => cli.close())
beforeEach(() => cli.proxy.reset())

let folders = 0
async function copyOf(name: string): Promise<string> {
  const folder = join(cli.folder, `copy-${++folders}`)
  await cp(join(llama, name), folder, { recursive: true })
  return folder
}

function publishPatch(folder: string, ...more: string[]) {
  return cli.run(['publish', folder, '--name', 'lab/bad', '--version', '1.0.0', '--base', 'lab/tiny@1.0', '--json', ...more])
}

/** Nothing was sent, and nobody sees a version. */
async function expectNothingPublished(): Promise<void> {
  expect(cli.proxy.requests.filter(({ method }) => method === 'PUT')).toEqual([])
  expect((await cli.run(['info', 'lab/bad'])).code).toBe(4)
}

test('pickled weights are refused, with what to do', async () => {
  const folder = await copyOf('patch-kind')
  await writeFile(join(folder, 'adapter_model.bin'), 'pickle')
  const refused = await publishPatch(folder)
  expect(refused).toMatchObject({ code: 1, json: { error: { code: 'pickle' } } })
  expect(refused.stderr).toContain('safe_serialization=True')
  await expectNothingPublished()
})

test('training state and hidden files are left out', async () => {
  const folder = await copyOf('patch-kind')
  await mkdir(join(folder, 'checkpoint-500'))
  for (const name of ['optimizer.pt', 'scheduler.pt', 'rng_state.pth', 'training_args.bin', 'trainer_state.json', '.gitattributes', 'checkpoint-500/adapter_model.safetensors']) {
    await writeFile(join(folder, name), 'state')
  }
  const dry = await publishPatch(folder, '--dry-run')
  expect(dry.json.files.map(({ path }: { path: string }) => path)).toEqual(['README.md', 'adapter_config.json', 'adapter_model.safetensors'])
  expect(dry.stderr).toContain('optimizer.pt')
})

test('a truncated safetensors file is named', async () => {
  const folder = await copyOf('patch-kind')
  await truncate(join(folder, 'adapter_model.safetensors'), 5000)
  const refused = await publishPatch(folder)
  expect(refused).toMatchObject({ code: 1, json: { error: { code: 'invalid_file' } } })
  expect(refused.stderr).toContain('adapter_model.safetensors')
  await expectNothingPublished()
})

test('a model without one of its shards is refused', async () => {
  const folder = await copyOf('base')
  await rm(join(folder, 'model-00002-of-00003.safetensors'))
  const refused = await cli.run(['publish', folder, '--name', 'lab/bad', '--version', '1.0', '--json'])
  expect(refused.code).toBe(1)
  expect(refused.json.error.message).toContain('model-00002-of-00003.safetensors')
  await expectNothingPublished()
})

test('a patch of another architecture does not fit its base, and each tensor is named', async () => {
  const gemma = await copyFixture(cli, 'gemma2')
  const refused = await publishPatch(join(gemma, 'patch-kind'))
  expect(refused).toMatchObject({ code: 3, json: { error: { code: 'incompatible' } } })
  expect(refused.json.error.details.reasons[0]).toMatchObject({ severity: 'refusal', expected: expect.anything(), found: expect.anything() })
  await expectNothingPublished()
})

test('get onto a model of another shape names every tensor, what was expected and found, and what to do', async () => {
  const gemma = await copyFixture(cli, 'gemma2')
  await cli.ok('publish', join(gemma, 'base'), '--name', 'lab/gemma', '--version', '1.0')
  await cli.ok('publish', join(llama, 'patch-kind'), '--name', 'lab/kind', '--version', '1.0.0', '--base', 'lab/tiny@1.0')
  const output = join(cli.folder, 'misfit')
  const refused = await cli.run(['get', 'lab/gemma@1.0', '--patch', 'lab/kind', '--output', output])
  expect(refused.code).toBe(3)
  for (const layer of [0, 1, 2, 3]) expect(refused.stderr).toMatch(new RegExp(`layers\\.${layer}\\.self_attn\\.v_proj\\.weight .*expected \\[128, 128\\], found \\[64, 128\\].*Choose`))
  await expect(stat(output)).rejects.toThrow('ENOENT')
})

test('a registry whose disk is full is told apart', async () => {
  cli.proxy.decide = ({ method, path }) => (method === 'PUT' && path.startsWith('/blobs/') ? 507 : 'pass')
  const folder = await copyOf('patch-kind')
  await writeFile(join(folder, 'README.md'), 'never sent before')
  expect(await publishPatch(folder)).toMatchObject({ code: 9, json: { error: { code: 'disk_full' } } })
})

test('a variety that cannot be merged is refused by its name', async () => {
  const folder = await copyOf('patch-kind')
  const path = join(folder, 'adapter_config.json')
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), use_dora: true }))
  const refused = await publishPatch(folder)
  expect(refused.code).toBe(3)
  expect(refused.stderr).toContain('DoRA')
})

test('what ingest rejects is told, and the version can be put right', async () => {
  const folder = await copyOf('patch-kind')
  const path = join(folder, 'adapter_model.safetensors')
  const sound = await readFile(path)
  const broken = Buffer.from(sound)
  broken.writeUInt32LE(0x7fc00000, broken.length - 4)
  await writeFile(path, broken)
  const rejected = await publishPatch(folder)
  expect(rejected).toMatchObject({ code: 1, json: { error: { code: 'rejected', details: { rejection: [{ code: 'non-finite' }] } } } })
  expect((await cli.run(['resolve', 'lab/bad', '--target', 'lab/tiny@1.0'])).code).toBe(4)
  await writeFile(path, sound)
  expect((await publishPatch(folder)).code).toBe(0)
})

test('a version that exists is a conflict, and --skip-existing takes the same files for done', async () => {
  const publish = (...more: string[]) => cli.run(['publish', join(llama, 'base'), '--name', 'lab/tiny', '--version', '1.0', '--json', ...more])
  expect(await publish()).toMatchObject({ code: 5, json: { error: { code: 'version_exists' } } })
  expect(await publish('--skip-existing')).toMatchObject({ code: 0, json: { existed: true } })
  await writeFile(join(llama, 'base', 'README.md'), 'another file')
  expect(await publish('--skip-existing')).toMatchObject({ code: 5 })
})

test.each([
  { args: ['publish', '.', '--name', 'no-slash'], code: 2, says: 'organization/name' },
  { args: ['publish', '.', '--name', 'lab/patch'], code: 2, says: '--version' },
  { args: ['publish', '.', '--name', 'lab/patch', '--version', '1.0'], code: 2, says: 'semantic version' },
  { args: ['publish', '.', '--name', 'lab/patch', '--version', '1.0.0'], code: 2, says: '--base' },
  { args: ['publish', '.', '--name', 'lab/patch', '--version', '1.0.0', '--base', 'lab/tiny@1.0', '--parent', 'lab/tiny@1.0'], code: 2, says: '--parent is for models' },
  { args: ['publish', '.', '--name', 'lab/patch', '--version', '1.0.0', '--base', 'lab/tiny@9.0'], code: 4, says: 'Publish the model first' },
  { args: ['publish', '.', '--name', 'nobody/patch', '--version', '1.0.0', '--base', 'lab/tiny@1.0'], code: 4, says: 'nobody' },
  { args: ['publish', '/nowhere', '--name', 'lab/patch', '--version', '1.0.0'], code: 4, says: '/nowhere' },
  { args: ['publish', '.', '--name', 'lab/patch', '--version', '1.0.0', '--base', 'lab/tiny@1.0', '--target-range', 'bogus range'], code: 2, says: 'bogus range' },
  { args: ['resolve', 'lab/none', '--target', 'lab/tiny@1.0'], code: 4, says: 'lab/none' },
  { args: ['info', 'lab/none'], code: 4, says: 'no model, patch or dataset lab/none' },
  { args: ['jobs', 'show', 'nonsense'], code: 2, says: 'id (param)' },
  { args: ['get', 'lab/tiny', '--output', 'out'], code: 2, says: 'lab/tiny@1.0' },
  { args: ['get', 'lab/tiny@1.0', '--patch', 'lab/x:heavy', '--output', 'out'], code: 2, says: 'heavy' },
  { args: ['get', '--lock', 'none.lock', '--output', 'out'], code: 4, says: 'none.lock' },
  { args: ['get', '--output', 'out'], code: 2, says: 'target' },
  { args: ['merge', '.', '.', '--output', 'out'], code: 2, says: '. is a patch, where a model is expected' },
  { args: ['merge', '../base', '../base', '--output', 'out'], code: 2, says: '../base is a model, where a patch is expected' },
  { args: ['merge', '.', '.', '--output', '/proc/portllm/out'], code: 1, says: 'The folder /proc/portllm/out.partial cannot be made: ENOENT' },
  { args: ['frobnicate'], code: 2, says: 'unknown command' },
  { args: ['whoami', '--registry', 'ftp://x'], code: 2, says: 'address of a registry' },
  { args: ['whoami', '--registry', 'http://127.0.0.1:1'], code: 7, says: 'cannot be reached (bad port)' },
  { args: ['whoami', '--registry', 'http://127.0.0.1:2'], code: 7, says: 'cannot be reached (ECONNREFUSED)' },
])('$args ends with $code', async ({ args, code, says }) => {
  const ended = await cli.run(args, { cwd: join(llama, 'patch-kind') })
  expect(ended.stderr).toContain(says)
  expect(ended.code).toBe(code)
  expect(ended.stdout).toBe('')
  await expect(stat(join(llama, 'patch-kind', 'out'))).rejects.toThrow('ENOENT')
})

test('an address that is no registry is told apart', async () => {
  cli.proxy.decide = () => 404
  expect(await cli.run(['whoami'])).toMatchObject({ code: 7, stderr: expect.stringContaining('PortLLM registry') })
})

test('login keeps the token for its registry alone, readable by nobody else', async () => {
  const env = { PORTLLM_REGISTRY: undefined, PORTLLM_TOKEN: undefined }
  const config = join(cli.folder, 'config', 'portllm', 'config.json')
  const wrong = await cli.run(['login', cli.proxy.url, '--token-stdin'], { env, stdin: 'plm_wrong\n' })
  expect(wrong.code).toBe(6)
  await expect(stat(config)).rejects.toThrow('ENOENT')

  const login = await cli.run(['login', `${cli.proxy.url}/`, '--token-stdin', '--json'], { env, stdin: `${cli.registry.adminToken}\n` })
  expect(login).toMatchObject({ code: 0, json: { user: 'admin', config } })
  expect((await stat(config)).mode & 0o777).toBe(0o600)
  expect(login.stdout + login.stderr).not.toContain(cli.registry.adminToken)
  expect((await cli.run(['whoami', '--json'], { env })).json.user.name).toBe('admin')

  // The same registry under another name is another one: its token stays home.
  const other = await cli.run(['whoami'], { env: { ...env, PORTLLM_REGISTRY: cli.registry.url } })
  expect(other).toMatchObject({ code: 6, stderr: expect.stringContaining('portllm login') })
  expect((await cli.run(['logout'], { env })).code).toBe(0)
  expect((await cli.run(['whoami', '--registry', cli.proxy.url], { env })).code).toBe(6)
})

test('every command has help with an example or a summary, and says so with exit code 0', async () => {
  const help = await cli.run(['--help'])
  expect(help).toMatchObject({ code: 0, stderr: '' })
  expect(help.stdout).toContain('Exit codes')
  for (const command of ['publish', 'get', 'resolve', 'merge']) {
    const text = await cli.run([command, '--help'])
    expect(text).toMatchObject({ code: 0, stdout: expect.stringContaining('Examples:') })
  }
})
