import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pLimit from 'p-limit'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { send, upload as uploadFiles, type Call } from '../contract/harness.ts'
import { startRegistry, type Registry } from '../setup/registry.ts'
import { malformedUploads, SOUND_UPLOADS, type Upload } from './malformed-uploads.ts'

/** Of the server, above what it had after two sound publishes. */
const MOST_MEMORY = 64e6
/** At the same time, as from several publishers. */
const AT_ONCE = 4
const ORGANIZATION = 'lab'

let folder: string
let registry: Registry
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-publishes-'))
  registry = await startRegistry(folder)
  await ok('createOrganization', { body: { name: ORGANIZATION } })
})
afterAll(async () => {
  await registry?.stop()
  await rm(folder, { recursive: true, force: true })
})

const call = (operation: string, input: Call = {}) => send(registry.url, operation, { ...input, token: input.token === undefined ? registry.token : input.token })
async function ok(operation: string, input?: Call): Promise<any> {
  const { status, body } = await call(operation, input)
  if (status >= 300) throw Object.assign(new Error(`${operation} answered ${status}: ${JSON.stringify(body)}`), { status, error: body.error })
  return body
}

/** `published`, or the reasons why not: of the draft, the upload or the job. */
async function publish({ subject, files }: Upload, version: string): Promise<'published' | readonly { code: string; message: string }[]> {
  const name = subject === 'model' ? 'base' : 'adapter'
  try {
    await uploadFiles({ ok }, { kind: subject, org: ORGANIZATION, name, version, files, ...(subject === 'patch' && { base: `${ORGANIZATION}/base@1.0.0` }) })
  } catch (error) {
    const { status, error: refused } = error as { status?: number; error: { code: string; message: string } }
    if (status === undefined || status >= 500) throw error
    return [refused]
  }
  for (;;) {
    const { state, rejection } = await ok(subject === 'model' ? 'getModelVersion' : 'getPatchVersion', { params: { org: ORGANIZATION, name, version } })
    if (state === 'published') return state
    if (state === 'rejected') return rejection
    await sleep(50)
  }
}

/** The first of each kind. */
async function* sample(): AsyncGenerator<Upload> {
  const kinds = new Set<string>()
  for await (const one of malformedUploads()) {
    const kind = one.name.replace(/ \(\d+\)$/, '')
    // What was declared is taken from the files here, and what an oracle has to judge is judged in uploads.test.ts.
    if (kinds.has(kind) || one.declared !== undefined || (one.expected === null && kinds.size >= SOUND_UPLOADS)) continue
    kinds.add(kind)
    yield one
  }
}

const peakMemory = async () => 1024 * Number(/VmHWM:\s+(\d+) kB/.exec(await readFile(`/proc/${registry.process.pid}/status`, 'utf8'))![1])

test('malformed uploads, published as whole versions, are refused with a reason, and the registry stays as it was', async () => {
  const problems: string[] = []
  const uploads = sample()
  for (const version of ['1.0.0', '1.0.0']) expect(await publish((await uploads.next()).value as Upload, version)).toBe('published')
  const idle = await peakMemory()
  let count = 0
  const limit = pLimit(AT_ONCE)
  const running = new Set<Promise<void>>()
  for await (const one of uploads) {
    const version = `2.0.${count++}`
    const job = limit(async () => {
      const reasons = await publish(one, version)
      if (reasons === 'published') problems.push(`${one.name}: published`)
      else if (reasons.length === 0 || reasons.some(({ code, message }) => !/^[a-z0-9_-]+$/.test(code) || message.length < 20)) problems.push(`${one.name}: ${JSON.stringify(reasons)}`)
      else if (!reasons.some(({ code }) => one.expected!.test(code) || code === 'invalid_request' || code === 'invalid_reference')) problems.push(`${one.name}: ${one.expected} expected, ${reasons.map(({ code }) => code)}`)
    }).finally(() => running.delete(job))
    running.add(job)
    if (running.size >= AT_ONCE) await Promise.race(running)
  }
  await Promise.all(running)
  const [models, patches] = [await ok('listModels', { token: null }), await ok('listPatches', { token: null })]
  const peak = await peakMemory()
  console.log(`${count} publishes refused; server ${(peak / 1e6).toFixed(0)} MB, idle ${(idle / 1e6).toFixed(0)} MB`)
  expect(problems).toEqual([])
  expect(count).toBeGreaterThan(100)
  expect([models.items, patches.items]).toMatchObject([[{ name: 'base', latestVersion: '1.0.0' }], [{ name: 'adapter', latestVersion: '1.0.0' }]])
  expect(peak - idle).toBeLessThan(MOST_MEMORY)
}, 300_000)
