import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { newToken, publish, startTestRegistry, type TestRegistry } from '../contract/harness.ts'
import { runCommand } from '../setup/registry.ts'

let registry: TestRegistry
let folder: string

beforeAll(async () => {
  registry = await startTestRegistry()
  folder = await mkdtemp(join(tmpdir(), 'portllm-matrix-'))
  await registry.ok('createOrganization', { body: { name: 'lab' } })
  const weights = (of: string) => ({ 'config.json': '{}', 'model.safetensors': Buffer.alloc(64, of) })
  await publish(registry, { kind: 'model', org: 'lab', name: 'm', version: '1', files: weights('base') })
  await publish(registry, { kind: 'model', org: 'lab', name: 'm', version: '2', parent: { reference: 'lab/m@1', kind: 'continued-pretraining' }, files: weights('evolved') })
  await publish(registry, { kind: 'patch', org: 'lab', name: 'p', version: '1.0.0', base: 'lab/m@1', files: { 'adapter_model.safetensors': Buffer.alloc(40, 'a') } })
  await publish(registry, { kind: 'patch', org: 'lab', name: 'p', version: '2.0.0', base: 'lab/m@2', files: { 'adapter_model.safetensors': Buffer.alloc(40, 'b') } })
  await evaluate({ target: 'lab/m@1' }, 0.2)
  await evaluate({ target: 'lab/m@2' }, 0.3)
  await evaluate({ target: 'lab/m@1', patch: 'lab/p@1.0.0', how: 'peft' }, 0.75)
  await evaluate({ target: 'lab/m@2', patch: 'lab/p@1.0.0', how: 'peft' }, 0.7)
  await evaluate({ target: 'lab/m@2', patch: 'lab/p@2.0.0', how: 'peft' }, 0.8)
})
afterAll(async () => {
  await registry.close()
  await rm(folder, { recursive: true, force: true })
})

/** As a runner would answer. */
async function evaluate(body: Record<string, unknown>, value: number): Promise<void> {
  await registry.ok('requestEvaluation', { body: { ...body, tasks: ['boolq', 'sst2'] } })
  const { job, token } = await registry.ok('claimJob', { token: await newToken(registry, ['runner']), body: { kinds: ['evaluate'], waitSeconds: 5, runner: { name: 'test' } } })
  const score = { version: '2.0', metric: 'acc', filter: 'none', stderr: 0.02, samples: 400, higher_is_better: true }
  await registry.ok('completeJob', { params: { id: job.id }, token, body: { result: { scores: [{ ...score, task: 'boolq', value }, { ...score, task: 'sst2', value: 0.5 }], files: [], versions: {}, device: 'cpu', seconds: 1 } } })
}

function portllm(...args: string[]) {
  return runCommand({ url: registry.url, token: registry.adminToken }, args, { configFolder: folder })
}

test('people get a table for each task; the file is the picture or the figures', async () => {
  const svg = join(folder, 'picture.svg')
  const ended = await portllm('matrix', 'lab/p', '--output', svg)
  expect([ended.code, ended.stderr]).toEqual([0, `Wrote ${svg}.\n`])
  expect(ended.stdout.split('\n').map((line) => line.trimEnd().replaceAll(/ {2,}/g, '  '))).toEqual([
    'boolq acc (task version 2.0, higher is better)', 'patch  lab/m@1  lab/m@2', 'none  0.200 ± 0.020  0.300 ± 0.020', 'lab/p@1.0.0  0.750 ± 0.020 (PEFT)  0.700 ± 0.020 (PEFT)', 'lab/p@2.0.0  -  0.800 ± 0.020 (PEFT)',
    '', 'sst2 acc (task version 2.0, higher is better)', 'patch  lab/m@1  lab/m@2', 'none  0.500 ± 0.020  0.500 ± 0.020', 'lab/p@1.0.0  0.500 ± 0.020 (PEFT)  0.500 ± 0.020 (PEFT)', 'lab/p@2.0.0  -  0.500 ± 0.020 (PEFT)', '',
  ])
  expect(await readFile(svg, 'utf8')).toContain('boolq acc: base 0.200 ± 0.020, evolved 0.300 ± 0.020, evolved + patch 0.700 ± 0.020, fine-tuned on evolved 0.800 ± 0.020')

  const json = join(folder, 'figures.json')
  const figures = JSON.parse((await portllm('matrix', 'lab/p@1.0.0', '--task', 'boolq', '--output', json, '--json')).stdout)
  expect(figures).toMatchObject({ patch: 'lab/p', matrices: [{ task: 'boolq', rows: [{ patch: null }, { patch: 'lab/p@1.0.0', cells: [{ value: 0.75, how: 'peft' }, { value: 0.7 }] }] }], comparisons: [{ target: 'lab/m@2', groups: [{ bars: [{ kind: 'base' }, { kind: 'evolved' }, { kind: 'ported' }] }] }] })
  expect(figures.matrices).toHaveLength(1)
  expect(JSON.parse(await readFile(json, 'utf8'))).toEqual(figures)
})

test('what cannot be shown is said', async () => {
  for (const [args, code, message] of [
    [['lab/p', '--output', join(folder, 'x.pdf')], 2, /must end in \.svg, \.json/], [['lab/p', '--output', join(folder, 'no', 'x.svg')], 2, /there is no folder/], [['lab/p:2'], 2, /has a weight/],
    [['lab/none'], 4, /lab\/none does not exist/], [['lab/p', '--task', 'mrpc'], 4, /no evaluation that you may see of the task mrpc/], [['lab/p', '--target', 'lab/m@9', '--output', join(folder, 'x.svg')], 2, /not evaluated on lab\/m@9: give one as --target: lab\/m@2/],
    [['lab/p@2.0.0', '--output', join(folder, 'x.svg')], 4, /only on what it was trained on/],
  ] as const) {
    const ended = await portllm('matrix', ...args)
    expect([args, ended.code, ended.stderr]).toEqual([args, code, expect.stringMatching(message)])
  }
})
