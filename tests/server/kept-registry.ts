import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readConfig, type ServerConfig } from '../../api/config.ts'
import { openServerLog } from '../../api/observability/server-log.ts'
import { startServer } from '../../api/start-server.ts'
import { callerOf, fileList, newOrganization, newToken, newUser, putFiles, sha256, startTestRegistry, upload, type Caller, type TestRegistry } from '../contract/harness.ts'
import { ROOT } from '../setup/registry.ts'

/** Everything that a registry can hold, to be found again somewhere else. */
export interface Kept {
  readonly org: string
  readonly tokens: { readonly admin: string; readonly reader: string; readonly revoked: string }
  readonly derivations: readonly string[]
  /** What its server has answered (`answersOf`). */
  readonly answers: Readonly<Record<string, string>>
}

/**
 * Fills a registry: two model versions, a patch with marks and tags, a data set, a merged model of each storage, an analysis; people
 * and tokens; a draft of which one file has arrived, and one whose verification waits. Ends the server.
 */
export async function fillRegistry(options: Parameters<typeof startTestRegistry>[0]): Promise<Kept> {
  const first = await startTestRegistry({ ...options, startRunners: true })
  const org = await newOrganization(first)
  const jobEnd = async (id: string) => {
    for (;;) {
      const { state } = await first.ok('getJob', { params: { id } })
      if (state !== 'queued' && state !== 'running') return
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  const publishFixture = async (kind: 'model' | 'patch', fixture: string, name: string, version: string, more: Record<string, unknown> = {}) => {
    const folder = join(ROOT, 'tests/fixtures', fixture)
    const files = Object.fromEntries(await Promise.all((await readdir(folder)).map(async (path) => [path, await readFile(join(folder, path))] as const)))
    await jobEnd((await upload(first, { kind, org, name, version, files, ...more })).job.id)
  }
  await publishFixture('model', 'llama/base', 'tiny', '1.0')
  await publishFixture('model', 'llama/evolved', 'tiny', '2.0', { parent: { reference: `${org}/tiny@1.0`, kind: 'continued-pretraining' } })
  await publishFixture('patch', 'llama/patch-kind', 'kind', '1.0.0', { base: `${org}/tiny@1.0` })
  await publishFixture('patch', 'llama/patch-kind', 'kind', '1.1.0', { base: `${org}/tiny@1.0` })
  await jobEnd((await upload(first, { kind: 'dataset', org, name: 'data', version: '1.0.0', files: { 'train.jsonl': '{"text":"ü\\n\\u2028"}\n' } })).job.id)
  await first.ok('yankPatchVersion', { params: { org, name: 'kind', version: '1.0.0' }, body: { reason: 'It "was" wrong:\n\\ 🙂' } })
  await first.ok('setDistTag', { params: { org, name: 'kind', tag: 'stable' }, body: { version: '1.1.0' } })
  const derivations: string[] = []
  for (const storage of ['computed', 'materialised']) {
    const weight = storage === 'computed' ? 1 : 0.5
    const response = await fetch(`${first.url}/v1/models/${org}/tiny/2.0/merged?patch=${org}/kind:${weight}&storage=${storage}`, { headers: { Prefer: 'wait=60', Authorization: `Bearer ${first.adminToken}` } })
    const view = (await response.json()) as { id: string; state: string; storage: string }
    if (view.state !== 'ready' || view.storage !== storage) throw new Error(`not merged: ${JSON.stringify(view)}`)
    derivations.push(view.id)
  }
  const { id } = await first.ok('requestAnalysis', { body: { patch: `${org}/kind@1.1.0`, target: `${org}/tiny@2.0` }, headers: { Prefer: 'wait=60' } })
  if (id === undefined) throw new Error('not analyzed')
  const reader = await newUser(first, { organization: org, role: 'reader', scopes: ['read'] })
  const revoked = await newToken(first, ['read'])
  const { token } = await first.ok('getWhoami', { token: revoked })
  await first.ok('revokeToken', { params: { id: token.id } })
  await endRunners(first)
  const files = { 'sent.bin': 'these bytes have arrived', 'later.bin': 'these have not' }
  const draft = await first.ok('draftModelVersion', { params: { org, name: 'tiny', version: 'draft' }, body: { files: fileList(files) } })
  await putFiles({ files: draft.files.filter(({ path }: { path: string }) => path === 'sent.bin') }, files)
  await upload(first, { kind: 'model', org, name: 'tiny', version: 'waiting', files: { 'a.txt': 'waits for its verification' } })
  const kept = { org, tokens: { admin: first.adminToken, reader, revoked }, derivations }
  const answers = await answersOf(first.url, kept)
  await first.server.close()
  return { ...kept, answers }
}

/** What is asked for now waits. */
async function endRunners(registry: TestRegistry): Promise<void> {
  await registry.server.dependencies.launcher.stop()
  Object.assign(registry.server.dependencies.launcher, { wake() {} })
}

/** What the API answers to every question about what is kept, files by their digest; without the addresses of servers, also of the one that measured. */
async function answersOf(url: string, { org, tokens, derivations }: Omit<Kept, 'answers'>): Promise<Record<string, string>> {
  const answers: Record<string, string> = {}
  const get = async (path: string, token: string | null = tokens.admin) => {
    const response = await fetch(`${url}${path}`, { headers: token === null ? {} : { Authorization: `Bearer ${token}` } })
    const bytes = Buffer.from(await response.arrayBuffer())
    const text = path.includes('/files/') ? sha256(bytes) : bytes.toString().replace(/http:\/\/127\.0\.0\.1:\d+/g, 'URL').replace(/"requestId":"[^"]*"/, '').replace(/"lastUsedAt":"[^"]*"/g, '')
    answers[`${path} ${Object.entries(tokens).find(([, value]) => value === token)?.[0]}`] = `${response.status} ${response.headers.get('etag')} ${text}`
    return response.ok && !path.includes('/files/') ? JSON.parse(bytes.toString()) : null
  }
  for (const token of Object.values(tokens)) await get('/v1/whoami', token)
  for (const path of [`/v1/organizations/${org}`, '/v1/models', '/v1/patches', '/v1/datasets', '/v1/tokens', `/v1/patches/${org}/kind`, `/v1/patches/${org}/kind/dist-tags`, `/v1/models/${org}/tiny`]) await get(path)
  for (const owner of [`models/${org}/tiny/1.0`, `models/${org}/tiny/2.0`, `patches/${org}/kind/1.0.0`, `patches/${org}/kind/1.1.0`, `datasets/${org}/data/1.0.0`, ...derivations.map((id) => `derivations/${id}`)]) {
    const view = await get(`/v1/${owner}`)
    await get(`/v1/${owner}/manifest`)
    for (const { path } of view.files) await get(`/v1/${owner}/files/${path}`)
  }
  for (const id of derivations) await get(`/v1/derivations/${id}/receipt`)
  for (const selector of ['', '@1.0.0', '@stable', '@^1']) for (const token of [tokens.reader, null]) await get(`/v1/resolve?patch=${org}/kind${selector}&target=${org}/tiny@2.0`, token)
  return answers
}

/** Starts a server on what was kept, with nothing but its token that a server knows of, asks it everything, and lets `more` ask. */
export async function servedAnswers(config: ServerConfig, kept: Kept, more: (caller: Caller) => Promise<void> = async () => {}): Promise<Record<string, string>> {
  const log = await openServerLog(config, { write: (line: string) => void (line.includes('"err"') && process.stderr.write(line)) })
  const server = await startServer(config, { log, onFatal: (error) => { throw error } })
  try {
    if (server.bootstrapToken !== null) throw new Error('the registry is a new one')
    const answers = await answersOf(server.url, kept)
    await more(callerOf(server.url, kept.tokens.admin))
    return answers
  } finally {
    await server.close()
  }
}

/** What a command of `portllm-server` works on. */
export function configOf(data: string, environment: Record<string, string> = {}): ServerConfig {
  return { ...readConfig({ data }, environment), port: 0, startRunners: false, graceSeconds: 5 }
}

export interface CommandResult { code: number; stdout: string; stderr: string }

/** Runs `portllm-server` to its end. */
export function portllmServer(args: readonly string[], environment: Record<string, string> = {}): Promise<CommandResult> {
  return new Promise((resolve) => {
    execFile(process.execPath, [`${ROOT}api/server.ts`, ...args], { env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...environment } }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr })
    })
  })
}

/** The same, which must succeed and answers with JSON. */
export async function portllmServerJson(args: readonly string[], environment?: Record<string, string>): Promise<any> {
  const { code, stdout, stderr } = await portllmServer([...args, '--json'], environment)
  if (code !== 0) throw new Error(`portllm-server ${args.join(' ')} ended with exit code ${code}: ${stderr}`)
  return JSON.parse(stdout)
}
