import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { eq } from 'drizzle-orm'
import { audit } from '../../db/schema.ts'
import { sampleSums } from '../../patch/sample-analysis.ts'
import { sampleConfig, sampleModel, samplePatch, sampleTensors } from '../../patch/sample-manifests.ts'
import { CALIBRATION } from '../../patch/transfer-calibration.ts'
import { transferOf } from '../../patch/transfer.ts'
import { fileList, newOrganization, newToken, newUser, publish, runIngest, startTestRegistry, upload, type Answer, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let runner: string
beforeAll(async () => {
  registry = await startTestRegistry()
  runner = await newToken(registry, ['runner'])
})
afterAll(() => registry.close())

const codeOf = (answer: { status: number; body: any }) => [answer.status, answer.body?.error?.code]
const weights = (of: string, size: number) => ({ 'model.safetensors': Buffer.alloc(size, of) })
const modelSize = sampleModel().files[0]!.size
const patchSize = samplePatch(sampleConfig(), sampleTensors()).tensors.reduce((sum, { length }) => sum + length, 0)

interface Names { org: string; patch: string; target: string }

/** An organization with the models `base@v1` and `base@v2`, and a patch of the first that fits the second. */
async function withPatch(visibility: Partial<Record<'base' | 'target' | 'patch', 'internal'>> = {}): Promise<Names> {
  const org = await newOrganization(registry)
  await publish(registry, { kind: 'model', org, name: 'base', version: 'v1', files: weights(`base of ${org}`, modelSize), ...(visibility.base && { visibility: visibility.base }) })
  await publish(registry, { kind: 'model', org, name: 'evolved', version: 'v2', parent: { reference: `${org}/base@v1`, kind: 'continued-pretraining' }, files: weights(`evolved of ${org}`, modelSize), ...(visibility.target && { visibility: visibility.target }) })
  await publish(registry, { kind: 'patch', org, name: 'speech', version: '1.0.0', base: `${org}/base@v1`, files: { 'adapter_model.safetensors': Buffer.alloc(patchSize, org) }, ...(visibility.patch && { visibility: visibility.patch }) })
  return { org, patch: `${org}/speech`, target: `${org}/evolved@v2` }
}

function request({ patch, target }: Names, token?: string | null, headers: Record<string, string> = {}): Promise<Answer> {
  return registry.call('requestAnalysis', { body: { patch, target }, headers, ...(token !== undefined && { token }) })
}

async function claim(): Promise<any> {
  const { status, body } = await registry.call('claimJob', { token: runner, body: { kinds: ['analyze'], waitSeconds: 5, runner: { name: 'test' } } })
  if (status !== 200) throw new Error(`no analysis is waiting (${status})`)
  return body
}

function complete({ job, token }: any, measured: readonly unknown[]): Promise<Answer> {
  return registry.call('completeJob', { params: { id: job.id }, token, body: { result: { engine: { name: 'core', version: '1', path: 'scalar' }, measured, seconds: 2 } } })
}

const measuredOf = ({ spec }: any) => spec.tensors.map(({ name, cols }: any) => ({ name, rows: 8, cols, rank: 4, sums: sampleSums() }))

async function measured(names: Names): Promise<string> {
  const { analysis } = (await request(names)).body
  const claimed = await claim()
  expect((await complete(claimed, measuredOf(claimed))).status).toBe(204)
  return analysis
}

describe('an analysis', () => {
  it('is measured once for a patch and a target: a job, then the figures and a picture', async () => {
    const names = await withPatch()
    const asked = await request(names)
    expect([asked.status, asked.headers.get('location'), asked.headers.get('retry-after')]).toEqual([202, `/v1/jobs/${asked.body.job.id}`, '1'])
    expect(asked.body.job).toMatchObject({ kind: 'analyze', state: 'queued', subject: { kind: 'analysis', reference: `${names.org}/speech@1.0.0 on ${names.target}` } })
    const again = await Promise.all([request(names), request({ ...names, patch: `${names.patch}@^1` })])
    expect(again.map(({ body }) => body.job.id)).toEqual([asked.body.job.id, asked.body.job.id])
    const params = { id: asked.body.analysis }
    expect((await registry.ok('resolvePatches', { query: { patch: names.patch, target: names.target } })).patches[0].evidence).toEqual([])
    expect(await registry.ok('getAnalysis', { params, token: null })).toMatchObject({ state: 'queued', result: null, picture: null, readyAt: null, job: { id: asked.body.job.id } })
    expect(codeOf(await registry.call('getAnalysisPicture', { params, token: null }))).toEqual([409, 'wrong_state'])

    const claimed = await claim()
    expect(claimed.job.kind).toBe('analyze')
    expect(claimed.spec.tensors.map(({ name }: any) => name)).toEqual([0, 1].flatMap((layer) => ['q', 'v'].map((which) => `model.layers.${layer}.self_attn.${which}_proj.weight`)))
    const [{ factors, runs }] = claimed.spec.tensors
    expect(factors).toHaveLength(2)
    expect(runs[0].sample).toHaveLength(8)
    for (const { get, length } of [...factors, runs[0].target, runs[0].base, runs[0].sample[3].base]) {
      const response = await fetch(get.url, { headers: get.headers })
      expect((await response.arrayBuffer()).byteLength).toBe(length)
    }
    expect((await complete(claimed, measuredOf(claimed))).status).toBe(204)

    const ready = await registry.ok('getAnalysis', { params, token: null })
    const [patch, base, target] = await Promise.all([
      registry.ok('getPatchVersion', { params: { org: names.org, name: 'speech', version: '1.0.0' } }),
      registry.ok('getModelVersion', { params: { org: names.org, name: 'base', version: 'v1' } }), registry.ok('getModelVersion', { params: { org: names.org, name: 'evolved', version: 'v2' } }),
    ])
    expect(ready).toMatchObject({
      state: 'ready', job: { state: 'succeeded' }, patch: { reference: `${names.org}/speech@1.0.0`, digest: patch.digest }, base: { digest: base.digest }, target: { digest: target.digest },
      result: {
        format: 'portllm.analysis/1', patch: patch.digest, base: base.digest, target: target.digest, unmeasured: [],
        measured: { by: registry.url, engine: { name: 'core', version: '1', path: 'scalar' }, seconds: 2 },
        whole: { relativeDrift: 0.2, interference: -0.5 }, parts: [{ part: 'attention', tensors: 4 }],
      },
    })
    expect(ready.result.layers.map(({ layer, part }: any) => [layer, part])).toEqual([[0, 'attention'], [1, 'attention']])
    const known = await request(names)
    expect([known.status, known.body.id]).toEqual([200, params.id])

    const picture = await registry.call('getAnalysisPicture', { params, token: null })
    expect(picture.body).toMatch(/^<svg xmlns="http:\/\/www.w3.org\/2000\/svg".*<\/svg>\n$/s)
    expect(picture.headers.get('content-security-policy')).toContain("default-src 'none'")
    expect(ready.picture).toBe(`${registry.url}/v1/analyses/${params.id}/picture.svg`)
    // Whoever resolves the pair is told, and the verdict does not depend on it.
    const resolution = await registry.ok('resolvePatches', { query: { patch: names.patch, target: names.target }, token: null })
    expect(resolution.patches[0]).toMatchObject({ verdict: 'portable', evidence: [{ kind: 'analysis', id: params.id, measured: { by: registry.url }, parts: ready.result.parts, transfer: transferOf(CALIBRATION, ready.result.whole.readDrift) }] })
    const merge = await registry.call('getMerged', { params: { org: names.org, name: 'evolved', version: 'v2' }, query: { patch: names.patch } })
    const page = await (await fetch(`${registry.url}/derivations/${merge.body.derivation}`)).text()
    expect(page).toContain(`<code>${names.patch}@1.0.0</code>: ${resolution.patches[0].evidence[0].transfer.says}.`)
    const actions = await registry.server.dependencies.db.select({ action: audit.action }).from(audit).where(eq(audit.subject, params.id))
    expect(actions.map(({ action }) => action).sort()).toEqual(['analysis.measure', 'analysis.request'])
  })

  it('is waited for with Prefer: wait, and a failed one is told and may be asked for again', async () => {
    const names = await withPatch()
    const waiting = request(names, undefined, { Prefer: 'wait=20' })
    const claimed = await claim()
    await registry.ok('failJob', { params: { id: claimed.job.id }, token: claimed.token, body: { code: 'core_nonfinite', message: 'Row 3 is bad.', retryable: false } })
    const failed = await waiting
    expect([...codeOf(failed), failed.body.error.message]).toEqual([502, 'analysis_failed', 'The analysis failed: Row 3 is bad. Ask again to start another job.'])

    const again = await request(names)
    expect([again.status, again.body.job.id === claimed.job.id]).toEqual([202, false])
    const second = await claim()
    await complete(second, measuredOf(second))
    const ready = await request(names, undefined, { Prefer: 'wait=20' })
    expect([ready.status, ready.body.state]).toEqual([200, 'ready'])
  })

  it('takes only what was measured of its own tensors, from the attempt that holds the job', async () => {
    const names = await withPatch()
    const { analysis } = (await request(names)).body
    const claimed = await claim()
    const all = measuredOf(claimed)
    for (const wrong of [all.slice(1), [...all].reverse(), [...all, all[0]], [], [{ ...all[0], sums: { ...sampleSums(), driftSquared: -1 } }, ...all.slice(1)]]) {
      expect(codeOf(await complete(claimed, wrong))).toEqual([400, 'invalid_request'])
    }
    const merged = { engine: { name: 'core', version: '1', path: 'scalar' }, tensors: [], seconds: 1 }
    expect(codeOf(await registry.call('completeJob', { params: { id: claimed.job.id }, token: claimed.token, body: { result: merged } }))).toEqual([400, 'invalid_request'])
    expect((await registry.ok('getAnalysis', { params: { id: analysis } })).state).toBe('queued')
    expect((await complete(claimed, all)).status).toBe(204)
    expect(codeOf(await complete(claimed, all))).toEqual([409, 'stale_attempt'])
  })

  it('of what does not fit, is not there, or has a weight is refused, with the reason', async () => {
    const names = await withPatch()
    const wide = sampleModel({ hidden: 16 })
    await upload(registry, { kind: 'model', org: names.org, name: 'wide', version: 'v1', files: weights(`wide of ${names.org}`, wide.files[0]!.size) })
    await runIngest(registry, { tensors: wide.tensors })
    const refused = await request({ ...names, target: `${names.org}/wide@v1` })
    expect(codeOf(refused)).toEqual([422, 'incompatible'])
    expect(refused.body.error.details.reasons).toContainEqual(expect.objectContaining({ code: 'shape-mismatch', patch: `${names.org}/speech@1.0.0` }))
    const draft = await registry.ok('draftModelVersion', { params: { org: names.org, name: 'evolved', version: 'v3' }, body: { files: fileList({ 'config.json': '{}' }) } })
    expect(codeOf(await request({ ...names, target: draft.reference }))).toEqual([409, 'wrong_state'])
    expect(codeOf(await request({ ...names, target: `${names.org}/evolved@v9` }))).toEqual([404, 'not_found'])
    expect(codeOf(await request({ ...names, target: `${names.org}/evolved` }))).toEqual([400, 'invalid_reference'])
    expect(codeOf(await request({ ...names, patch: `${names.org}/nothing` }))).toEqual([404, 'not_found'])
    expect(codeOf(await request({ ...names, patch: `${names.patch}:0.5` }))).toEqual([400, 'invalid_reference'])
    await registry.ok('yankPatchVersion', { params: { org: names.org, name: 'speech', version: '1.0.0' }, body: { reason: 'wrong' } })
    expect(codeOf(await request({ ...names, patch: `${names.patch}@1.0.0` }))).toEqual([410, 'yanked'])
  })
})

describe('who may', () => {
  it('ask for one: whoever may see patch, base and target, with a token that reads', async () => {
    const names = await withPatch()
    expect(codeOf(await request(names, null))).toEqual([401, 'unauthenticated'])
    expect(codeOf(await request(names, runner))).toEqual([403, 'forbidden'])
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'reader', scopes: ['read'] })
    const asked = await request(names, stranger)
    expect(asked.status).toBe(202)
    expect((await registry.ok('getJob', { params: { id: asked.body.job.id }, token: null })).kind).toBe('analyze')
    const claimed = await claim()
    await complete(claimed, measuredOf(claimed))
  })

  it.each(['base', 'target', 'patch'] as const)('see one whose %s is internal: members only, and to others it does not exist', async (secret) => {
    const names = await withPatch({ [secret]: 'internal' })
    const member = await newUser(registry, { organization: names.org, role: 'reader', scopes: ['read'] })
    const stranger = await newUser(registry, { organization: await newOrganization(registry), role: 'admin', scopes: ['read', 'publish', 'admin'] })
    expect(codeOf(await request(names, stranger))).toEqual([404, 'not_found'])
    expect((await registry.call('claimJob', { token: runner, body: { kinds: ['analyze'], waitSeconds: 0, runner: { name: 'test' } } })).status).toBe(204)
    const id = await measured(names)
    expect((await registry.ok('getAnalysis', { params: { id }, token: member })).state).toBe('ready')
    expect((await request(names, member)).status).toBe(200)
    const picture = await registry.call('getAnalysisPicture', { params: { id }, token: member })
    expect([picture.status, picture.headers.get('cache-control')]).toEqual([200, 'private, max-age=3600'])
    const { job } = await registry.ok('getAnalysis', { params: { id } })
    for (const token of [stranger, null]) {
      const [seen, absent] = [await registry.call('getAnalysis', { params: { id }, token }), await registry.call('getAnalysis', { params: { id: crypto.randomUUID() }, token })]
      expect(codeOf(seen)).toEqual([404, 'not_found'])
      expect(seen.body.error.message.replace(/[0-9a-f-]{36}/, '')).toBe(absent.body.error.message.replace(/[0-9a-f-]{36}/, ''))
      expect(codeOf(await registry.call('getAnalysisPicture', { params: { id }, token }))).toEqual([404, 'not_found'])
      expect(codeOf(await registry.call('getJob', { params: { id: job.id }, token }))).toEqual([404, 'not_found'])
    }
    expect(codeOf(await request(names, stranger))).toEqual([404, 'not_found'])
    if (secret === 'base') {
      const evidenceFor = async (token: string | null) => (await registry.ok('resolvePatches', { query: { patch: names.patch, target: names.target }, token })).patches[0].evidence
      expect([await evidenceFor(member), await evidenceFor(null)]).toEqual([[expect.objectContaining({ id })], []])
    }
  })
})
