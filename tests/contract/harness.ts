import { createHash, randomUUID } from 'node:crypto'
import { cp, mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { RouteConfig } from '@hono/zod-openapi'
import type { ZodType } from 'zod'
import { createApp } from '../../api/app.ts'
import { readConfig, type ServerConfig } from '../../api/config.ts'
import type { Deployment } from '../../api/context.ts'
import { openServerLog } from '../../api/observability/server-log.ts'
import type { BlobStore } from '../../api/ports/blob-store.ts'
import { startServer, type RunningServer } from '../../api/start-server.ts'
import { openPglite } from '../../db/pglite.ts'
import type { ManifestTensor } from '../../patch/manifest.ts'
import { sampleConfig, sampleModel, samplePatch, sampleTensors } from '../../patch/sample-manifests.ts'
import { startEdgeRegistry } from '../setup/edge-registry.ts'
import { createDatabase } from '../setup/postgres.ts'
import { createBucket, type TestBucket } from '../setup/s3.ts'

/** What the suite runs on; `tests/vitest.config.ts` runs it once on each. */
export const DEPLOYMENT = (process.env['PORTLLM_TEST_DEPLOYMENT'] ?? 'embedded') as Deployment
/** What answers signed URLs: the registry itself, or an S3 in its own words. */
export const STORE = DEPLOYMENT === 'embedded' ? 'directory' : 's3'

export interface Call {
  params?: Record<string, string>
  query?: Record<string, string | number>
  body?: unknown
  /** Undefined: the administrator's. Null: none. */
  token?: string | null
  headers?: Record<string, string>
}
export interface Answer { status: number; body: any; headers: Headers }

export interface Caller {
  readonly url: string
  readonly adminToken: string
  /** Sends an operation of openapi.yaml and parses the answer with the schema of its status: an answer that the route does not declare fails the test. */
  call(operationId: string, call?: Call): Promise<Answer>
  /** The same, where the operation must succeed. */
  ok(operationId: string, call?: Call): Promise<any>
}

export interface TestRegistry extends Caller {
  readonly data: string
  readonly server: RunningServer
  readonly config: ServerConfig
  /** All that the server has logged, line by line. */
  readonly log: readonly string[]
  close(): Promise<void>
}

const TEMPLATE = fileURLToPath(new URL(`../../.cache/pglite-template`, import.meta.url))

/** A registry of its own for a test file: in this process, on a free port and a temporary folder, without runners. */
export async function startTestRegistry(options: Partial<ServerConfig> = {}): Promise<TestRegistry> {
  const data = options.data ?? (await mkdtemp(join(tmpdir(), 'portllm-test-')))
  if (DEPLOYMENT === 'embedded' && options.databaseUrl === undefined) await copyTemplate(join(data, 'database'))
  const bucket = DEPLOYMENT !== 'embedded' && options.s3 === undefined ? await createBucket() : null
  const services = bucket && { databaseUrl: await createDatabase(process.env['PORTLLM_TEST_POSTGRES_URL']!), s3: bucket.settings }
  const config: ServerConfig = { ...readConfig({}, {}), data, port: 0, startRunners: false, graceSeconds: 5, ...services, ...options }
  const lines: string[] = []
  const log = await openServerLog(config, { write: (line) => void lines.push(line) })
  const server = DEPLOYMENT === 'edge' ? await startEdgeRegistry(config, { log, onLog: (line) => void lines.push(line) }) : await startServer(config, { log, onFatal: (error) => { throw error } })
  return registryOf(server, config, bucket, lines)
}

/** The calls of a test to any registry; they are the administrator's unless they say otherwise. */
export function callerOf(url: string, adminToken: string): Caller {
  const call = (operationId: string, input: Call = {}) => send(url, operationId, input.token === undefined ? { ...input, token: adminToken } : input)
  return {
    url,
    adminToken,
    call,
    async ok(operationId, input) {
      const answer = await call(operationId, input)
      if (answer.status >= 300) throw new Error(`${operationId} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
      return answer.body
    },
  }
}

function registryOf(server: RunningServer, config: ServerConfig, bucket: TestBucket | null, log: string[]): TestRegistry {
  return {
    ...callerOf(server.url, server.bootstrapToken!),
    data: config.data,
    server,
    config,
    log,
    async close() {
      await server.close()
      await bucket?.remove()
      await rm(config.data, { recursive: true, force: true })
    },
  }
}

/** initdb takes seconds: one empty database is made once, and copied. */
async function copyTemplate(folder: string): Promise<void> {
  if (!(await stat(TEMPLATE).catch(() => null))) {
    const fresh = `${TEMPLATE}.${randomUUID()}`
    const { close } = await openPglite(fresh)
    await close()
    // Test files run side by side: whoever comes second throws its own away.
    await rename(fresh, TEMPLATE).catch(() => rm(fresh, { recursive: true }))
  }
  if (await stat(folder).catch(() => null)) return
  await mkdir(folder, { recursive: true })
  await cp(TEMPLATE, folder, { recursive: true })
}

const document = createApp(() => { throw new Error('this application only tells its routes') })

/** Every operation of the API, as its route defines it. */
export const operations: readonly RouteConfig[] = document.openAPIRegistry.definitions.filter((definition) => definition.type === 'route').map((definition) => definition.route)

export function operation(operationId: string): RouteConfig {
  const found = operations.find((route) => route.operationId === operationId)
  if (found === undefined) throw new Error(`there is no operation ${operationId}`)
  return found
}

/** Sends an operation of openapi.yaml to any registry, as `call` does to a test's own. */
export async function send(url: string, operationId: string, { params = {}, query = {}, body, token, headers = {} }: Call): Promise<Answer> {
  const route = operation(operationId)
  const path = route.path.replaceAll(/\{([^}:]+)[^}]*\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ''))
  const search = new URLSearchParams(Object.entries(query).map(([name, value]): [string, string] => [name, String(value)]))
  const response = await fetch(`${url}${path}${search.size > 0 ? `?${search}` : ''}`, {
    method: route.method.toUpperCase(),
    headers: {
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...(token === null || token === undefined ? {} : { Authorization: `Bearer ${token}` }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const answer = await parseAnswer(route, response)
  assertCaching(operationId, answer, typeof token === 'string')
  return answer
}

/** What a cache that many share may keep for good: each is public, and named by a digest or an immutable version. */
const IMMUTABLE = /^(?:get|head)(?:Model|Patch|Dataset|Derivation|Evaluation)File$|^get(?:Model|Patch|Dataset|Derivation)Manifest$|^getReceipt$/

/** Holds for every answer of the suite. Throws where a cache could show it to somebody else, or after it has changed. */
function assertCaching(operationId: string, { status, headers }: Answer, isAuthorized: boolean): void {
  const caching = headers.get('cache-control') ?? 'nothing'
  const isKept = !caching.includes('no-store') && !caching.includes('no-cache')
  const isRight = status >= 400 ? caching.includes('no-store') : isAuthorized ? caching.startsWith('private') : !isKept || IMMUTABLE.test(operationId) || operationId === 'getAnalysisPicture'
  if (!isRight || caching === 'nothing' || (caching.includes('immutable') && !IMMUTABLE.test(operationId))) {
    throw new Error(`${operationId} answered ${status} ${isAuthorized ? 'with' : 'without'} credentials, and says of caching: ${caching}`)
  }
}

/** Parses an answer with the schema that its route declares for the status. Throws where there is none, or it says something else. */
export async function parseAnswer(route: RouteConfig, response: Response): Promise<Answer> {
  const { status, headers } = response
  const declared = route.responses[status]
  const text = await response.text()
  if (declared === undefined) throw new Error(`${route.operationId} answered ${status}, which it does not declare: ${text}`)
  if (!headers.has('x-request-id')) throw new Error(`${route.operationId} answered without X-Request-Id`)
  // What a HEAD declares is what its GET would send.
  if (route.method === 'head') return { status, body: null, headers }
  const type = headers.get('content-type')?.split(';')[0] ?? ''
  const content = 'content' in declared ? (declared.content as Record<string, { schema: ZodType }>) : undefined
  const schema = content?.[type]?.schema
  if (schema === undefined) {
    if (content !== undefined || text !== '') throw new Error(`${route.operationId} answered ${status} as ${type || 'nothing'}, which it does not declare`)
    return { status, body: null, headers }
  }
  const body: unknown = type === 'application/json' ? JSON.parse(text) : text
  const parsed = schema.safeParse(body)
  if (!parsed.success) throw new Error(`${route.operationId} answered ${status} against its schema: ${parsed.error.message}\n${text}`)
  // A schema lets unknown keys pass and drops them: what is dropped was not declared.
  if (canonical(parsed.data) !== canonical(body)) throw new Error(`${route.operationId} answered ${status} with more than it declares:\n${canonical(body)}\n${canonical(parsed.data)}`)
  return { status, body, headers }
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    part !== null && typeof part === 'object' && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).filter(([, entry]) => entry !== undefined).sort(([a], [b]) => (a < b ? -1 : 1))) : part,
  )
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex')
}

let names = 0
/** Each test makes its own organization. */
export async function newOrganization(registry: Caller): Promise<string> {
  const name = `org-${process.pid}-${++names}`
  await registry.ok('createOrganization', { body: { name } })
  return name
}

/** A token of the administrator with fewer rights. */
export async function newToken(registry: Caller, scopes: string[], organization?: string): Promise<string> {
  const { token } = await registry.ok('createToken', { body: { name: 'test', scopes, organization } })
  return token
}

/** A token that has ended by now. The API makes none. */
export async function newExpiredToken(registry: TestRegistry): Promise<string> {
  const { db } = registry.server.dependencies
  const { tokens } = await import('../../db/schema.ts')
  const { eq } = await import('drizzle-orm')
  const { id, token } = await registry.ok('createToken', { body: { name: 'test', scopes: ['read'], expiresAt: '2099-01-01T00:00:00Z' } })
  await db.update(tokens).set({ expiresAt: new Date(Date.now() - 1) }).where(eq(tokens.id, id))
  return token
}

/** A user who is not the administrator, with a role in an organization and a token. The API has no users yet. */
export async function newUser(registry: TestRegistry, { organization, role, scopes }: { organization: string; role: 'reader' | 'publisher' | 'admin'; scopes: string[] }): Promise<string> {
  const { db } = registry.server.dependencies
  const { users, members, tokens, organizations } = await import('../../db/schema.ts')
  const { newTokenText, tokenSha256 } = await import('../../api/services/tokens/token-text.ts')
  const { eq } = await import('drizzle-orm')
  const [user] = await db.insert(users).values({ name: `user-${++names}` }).returning()
  const [owner] = await db.select().from(organizations).where(eq(organizations.name, organization))
  await db.insert(members).values({ organizationId: owner!.id, userId: user!.id, role })
  const text = newTokenText()
  await db.insert(tokens).values({ userId: user!.id, name: 'test', sha256: await tokenSha256(text), scopes })
  return text
}

export type Files = Record<string, string | Uint8Array>

export function fileList(files: Files): { path: string; size: number; sha256: string }[] {
  return Object.entries(files).map(([path, content]) => ({ path, size: Buffer.byteLength(content), sha256: sha256(content) }))
}

/** PUTs what an upload still lacks. Returns the answers' statuses. */
export async function putFiles(upload: any, files: Files): Promise<number[]> {
  const statuses: number[] = []
  for (const file of upload.files) {
    for (const part of file.parts) {
      const content = Buffer.from(files[file.path]!)
      if (part.stored) continue
      const response = await fetch(part.url, { method: part.method, headers: part.headers, body: content.subarray(part.offset, part.offset + part.length) })
      await response.arrayBuffer()
      statuses.push(response.status)
    }
  }
  return statuses
}

export interface Publish { kind: 'model' | 'patch' | 'dataset'; org: string; name: string; version: string; files: Files; token?: string; [more: string]: unknown }

/** Drafts, uploads and completes; the ingest job is then waiting. */
export async function upload(registry: Pick<TestRegistry, 'ok'>, { kind, org, name, version, files, token, ...more }: Publish): Promise<any> {
  const params = { org, name, version }
  const K = { model: 'Model', patch: 'Patch', dataset: 'Dataset' }[kind]
  const draft = await registry.ok(`draft${K}Version`, { params, body: { files: fileList(files), ...more }, token })
  await putFiles(draft, files)
  return registry.ok(`complete${K}Upload`, { params, token })
}

/** The same, and lets a stand-in for the runner find everything in order. */
export async function publish(registry: Caller, input: Publish): Promise<any> {
  await upload(registry, input)
  await runIngest(registry, input.files['README.md'] === undefined ? {} : { readme: String(input.files['README.md']) })
}

/**
 * Does what a runner does for the next ingest job, without looking at tensors: reads each file, checks its digest,
 * and reports a manifest, or the rejection given. Unless told otherwise, every model has the tensors of one sample
 * model, and every patch is one that fits it.
 */
export async function runIngest(registry: Caller, { readme = null, rejection, tensors }: { readme?: string | null; rejection?: unknown[]; tensors?: readonly ManifestTensor[] } = {}): Promise<Answer> {
  const claim = await claimIngest(registry)
  const files: { path: string; size: number; etag: string }[] = []
  for (const { path, size, sha256: digest, get } of claim.spec.files) {
    const response = await fetch(get.url, { headers: get.headers })
    const bytes = new Uint8Array(await response.arrayBuffer())
    if (bytes.length !== size || sha256(bytes) !== digest) throw new Error(`${path} has other bytes than the job says (${response.status})`)
    files.push({ path, size, etag: digest })
  }
  const facts = { modelType: 'llama', architectures: [], tieWordEmbeddings: false, quantization: null, layerCount: null, vocabularySize: null, tokenizerDigest: null, chatTemplateDigest: null }
  const manifests: Record<string, () => object> = {
    model: () => ({ format: 'portllm.model/1', files, tensors: tensors ?? sampleModel().tensors, facts }),
    patch: () => ({ ...samplePatch(sampleConfig(), sampleTensors()), files, ...(tensors !== undefined && { tensors }) }),
    dataset: () => ({ format: 'portllm.dataset/1', files }),
  }
  const result = rejection === undefined ? { manifest: manifests[claim.spec.subject]!(), readme } : { rejection }
  return registry.call('completeJob', { params: { id: claim.job.id }, token: claim.token, body: { result } })
}

const runnerTokens = new WeakMap<Caller, Promise<string>>()

export async function claimIngest(registry: Caller): Promise<any> {
  if (!runnerTokens.has(registry)) runnerTokens.set(registry, newToken(registry, ['runner']))
  const claim = await registry.call('claimJob', { token: await runnerTokens.get(registry)!, body: { kinds: ['ingest'], waitSeconds: 5, runner: { name: 'test' } } })
  if (claim.status !== 200) throw new Error(`no job is waiting (${claim.status})`)
  return claim.body
}

export function blobStore(registry: TestRegistry): BlobStore {
  return registry.server.dependencies.blobs
}
