import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestRegistry, upload, type TestRegistry } from '../contract/harness.ts'
import { portllm, ROOT, runCommand } from '../setup/registry.ts'

/** The question of the fixtures' task `kind`, as lm-eval takes it. */
const TASK = `task: kind
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "{{prompt}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
`
const CONFIG = `base_model: lab/tiny@1.0
datasets:
  - path: text
    type: completion
sequence_len: 64
micro_batch_size: 8
max_steps: 60
save_steps: 5
learning_rate: 0.0005
`
const QUESTIONS = 100
/** Steps enough that a runner, which tells its progress every three seconds, is seen in the midst of them. */
const FINETUNE = ['--model_name_or_path', 'lab/tiny@1.0', '--data', 'lab/kind@1.0', '--max_length', '96', '--batch_size', '16', '--lora_dropout', '0', '--lr', '0.002', '--num_epochs', '1', '--max_steps', '100', '--save_steps', '5', '--target_modules', 'q_proj,v_proj']

let registry: TestRegistry
let folder: string
let taskFile: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-research-'))
  process.env.PORTLLM_DATA = join(folder, 'data')
  // As people start it: its runners are its own child processes.
  registry = await startTestRegistry({ startRunners: true })
  await registry.ok('createOrganization', { body: { name: 'lab' } })
  const rows = (await readFile(join(ROOT, 'tests/fixtures/eval/kind.jsonl'), 'utf8')).trim().split('\n')
  await writeData('kind/train', rows.slice(QUESTIONS))
  await writeData('kind/test', rows.slice(0, QUESTIONS))
  await writeData('text/train', rows.map((row) => JSON.stringify({ text: JSON.parse(row).prompt })))
  for (const name of ['kind', 'text']) await cli('publish', join(folder, 'data/lab', name), '--kind', 'dataset', '--name', `lab/${name}`, '--version', '1.0', '--visibility', 'internal')
  taskFile = join(folder, 'kind.yaml')
  await writeFile(taskFile, TASK)
  await writeFile(join(folder, 'config.yaml'), CONFIG)
  await publishFixture('model', 'llama/base', 'tiny', '1.0')
  await publishFixture('model', 'llama/evolved', 'tiny', '2.0', { parent: { reference: 'lab/tiny@1.0', kind: 'continued-pretraining' } })
  await publishFixture('patch', 'llama/patch-kind', 'kind', '1.0.0', { base: 'lab/tiny@1.0' })
})
afterAll(async () => {
  await registry.close()
  delete process.env.PORTLLM_DATA
  await rm(folder, { recursive: true, force: true })
})

async function writeData(path: string, rows: readonly string[]): Promise<void> {
  const file = join(folder, 'data/lab', `${path}.jsonl`)
  await mkdir(join(file, '..'), { recursive: true })
  await writeFile(file, `${rows.join('\n')}\n`)
}

async function publishFixture(kind: 'model' | 'patch', fixture: string, name: string, version: string, more: Record<string, unknown> = {}): Promise<void> {
  const from = join(ROOT, 'tests/fixtures', fixture)
  const files = Object.fromEntries(await Promise.all((await readdir(from)).map(async (path) => [path, await readFile(join(from, path))] as const)))
  const { job } = await upload(registry, { kind, org: 'lab', name, version, files, ...more })
  expect((await ended(job.id)).state).toBe('succeeded')
}

async function until(id: string, isThere: (job: any) => boolean): Promise<any> {
  for (;;) {
    const job = await registry.ok('getJob', { params: { id } })
    if (isThere(job)) return job
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

function ended(id: string): Promise<any> {
  return until(id, ({ state }) => state !== 'queued' && state !== 'running')
}

/** The version that a training makes, once it has been verified. */
async function made(kind: 'Patch' | 'Model', name: string, version: string): Promise<any> {
  for (;;) {
    const found = await registry.ok(`get${kind}Version`, { params: { org: 'lab', name, version } })
    if (found.state === 'published' || found.state === 'rejected') return found
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** The real command line, with `--json`. */
function cli(...args: string[]): Promise<Record<string, any>> {
  return portllm({ url: registry.url, token: registry.adminToken }, args, { configFolder: folder })
}

function evaluate(model: string, ...more: string[]): Promise<Record<string, any>> {
  return cli('evaluate', '--model', model, '--task_file', taskFile, '--data', 'lab/kind', '--batch_size', '50', ...more)
}

/** Kills the runner of a training that has a checkpoint by now, and awaits the training's end in another one. */
async function killedOnce(job: { id: string }): Promise<void> {
  await until(job.id, ({ progress, state }) => state === 'failed' || (progress?.phase === 'training' && progress.done >= 6))
  const runners = await researchRunners()
  expect(runners).toHaveLength(1)
  process.kill(runners[0]!, 'SIGKILL')
  expect(await ended(job.id)).toMatchObject({ state: 'succeeded', attempt: 2 })
}

async function goneOn(): Promise<number> {
  return (await readFile(join(registry.data, 'runner.log'), 'utf8')).match(/Going on at step \d+, where the last run was interrupted/g)?.length ?? 0
}

/** Process ids of the server's own runner that trains and evaluates. */
async function researchRunners(): Promise<number[]> {
  const found: number[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [status, command] = await Promise.all(['status', 'cmdline'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')))
    if (command!.includes('--kinds\0evaluate,finetune,evolve') && status!.includes(`PPid:\t${process.pid}\n`)) found.push(Number(pid))
  }
  return found
}

test('a model is evaluated alone, with a patch merged into it, and with PEFT, which agree', async () => {
  const plain = await evaluate('lab/tiny@2.0')
  expect(plain.result).toMatchObject({ measured: { by: registry.url }, scores: [{ task: 'kind', version: '1.0', metric: 'acc', samples: QUESTIONS, higher_is_better: true, stderr: expect.any(Number) }] })
  const merged = await evaluate('lab/tiny@2.0', '--patch', 'lab/kind')
  const peft = await evaluate('lab/tiny@2.0', '--patch', 'lab/kind', '--how', 'peft')
  const [alone, ported, applied] = [plain, merged, peft].map(({ result }) => result.scores[0].value) as [number, number, number]
  expect(alone).toBeLessThan(0.4)
  expect(ported).toBeGreaterThan(0.6)
  expect(Math.abs(ported - applied)).toBeLessThanOrEqual(0.03)

  const samples = await fetch(`${registry.url}/v1/evaluations/${merged.id}/files/samples_kind.jsonl`, { headers: { Authorization: `Bearer ${registry.adminToken}` } })
  const answers = (await samples.text()).trim().split('\n').map((line) => JSON.parse(line))
  expect(answers).toHaveLength(QUESTIONS)
  expect(answers.filter(({ acc }) => acc === 1).length / QUESTIONS).toBeCloseTo(ported)
  const { patches: [resolved] } = await registry.ok('resolvePatches', { query: { patch: 'lab/kind', target: 'lab/tiny@2.0' } })
  const { matrices } = await cli('matrix', 'lab/kind')
  expect(matrices[0].rows.map(({ cells }: any) => cells[0]?.value)).toEqual([alone, ported])
  expect(resolved.evidence.map(({ how, scores }: any) => [how, scores[0].value, scores[0].alone.value])).toEqual([['peft', applied, alone], ['merged', ported, alone]])
}, 300_000)

test('a patch is fine-tuned and published; the runner is killed in it once, and the next one goes on at its checkpoint', async () => {
  const { job } = await cli('finetune', ...FINETUNE, '--task_file', taskFile, '--as', 'lab/fresh@1.0.0', '--no-wait')
  const before = await goneOn()
  await killedOnce(job)
  expect(await goneOn()).toBe(before + 1)

  const version = await made('Patch', 'fresh', '1.0.0')
  const { digest } = await registry.ok('getDatasetVersion', { params: { org: 'lab', name: 'kind', version: '1.0' } })
  expect(version).toMatchObject({
    state: 'published', rejection: null,
    training: { spec: { base: 'lab/tiny@1.0', task: 'kind', data: 'lab/kind@1.0' }, datasetDigest: digest, record: { task: 'kind', base: { name: 'lab/tiny@1.0' }, data: { source: `lab/kind@1.0 (${digest})`, examples: 500 }, steps: 100 } },
  })
  expect(version.training.record.curve.map(({ step }: any) => step)).toEqual(Array.from({ length: 100 }, (_, index) => index + 1))
  expect(version.files.map(({ path }: any) => path)).toEqual(['README.md', 'adapter_config.json', 'adapter_model.safetensors', 'training.json'])
  expect(await readdir(join(registry.data, 'scratch'))).toEqual([])
  const page = await (await fetch(`${registry.url}/patches/lab/fresh/1.0.0`)).text()
  expect(page).toContain('Fine-tuned on <code>lab/tiny@1.0</code> for the task <code>kind</code>')
}, 400_000)

test('a model is evolved and published as the child of its parent, killed once or not to the same bytes, and a patch is ported to it', async () => {
  const evolve = (version: string, ...more: string[]) => cli('evolve', join(folder, 'config.yaml'), '--model_name_or_path', 'lab/tiny@1.0', '--data', 'lab/text@1.0', '--as', `lab/tiny@${version}`, ...more)
  const { job } = await evolve('1.1', '--no-wait')
  const before = await goneOn()
  await killedOnce(job)
  expect(await goneOn()).toBe(before + 1)
  const killed = await made('Model', 'tiny', '1.1')
  expect(killed).toMatchObject({ state: 'published', parent: { reference: 'lab/tiny@1.0', kind: 'continued-pretraining' }, training: { spec: { parent: 'lab/tiny@1.0', config: CONFIG, data: 'lab/text@1.0' }, record: { data: { source: expect.stringMatching(/^lab\/text@1\.0 \(sha256:/) }, steps: 60 } } })

  expect(await readdir(join(registry.data, 'scratch'))).toEqual([])
  const whole = await evolve('1.2')
  const weights = ({ files }: any) => files.filter(({ path }: any) => path.endsWith('.safetensors')).map(({ path, etag }: any) => [path, etag])
  expect(weights(whole)).toEqual(weights(killed))
  expect(whole.training.record.curve).toEqual(killed.training.record.curve)
  expect(weights(await registry.ok('getModelVersion', { params: { org: 'lab', name: 'tiny', version: '1.0' } }))).not.toEqual(weights(killed))
  expect(await registry.ok('resolvePatches', { query: { patch: 'lab/kind', target: 'lab/tiny@1.1' } })).toMatchObject({ verdict: 'portable' })
}, 400_000)

test('a job that cannot be done says why: the version is rejected with it', async () => {
  const misfit = join(folder, 'misfit.yaml')
  await writeFile(misfit, TASK.replace('{{prompt}}', '{{question}}'))
  const run = (...args: string[]) => runCommand({ url: registry.url, token: registry.adminToken }, args, { configFolder: folder })
  const trained = await run('finetune', ...FINETUNE, '--task_file', misfit, '--as', 'lab/broken@1.0.0')
  expect([trained.code, trained.stderr]).toEqual([1, expect.stringMatching(/finetune job .* of lab\/broken@1\.0\.0 did not succeed: The data do not fit the task kind: .*question/)])
  expect(await made('Patch', 'broken', '1.0.0')).toMatchObject({ state: 'rejected', rejection: [{ code: 'no_data', message: expect.stringContaining('question') }], training: { job: { attempt: 1 } } })
  const evaluated = await run('evaluate', '--model', 'lab/tiny@2.0', '--task_file', taskFile, '--data', 'lab/none')
  expect([evaluated.code, evaluated.stderr]).toEqual([1, expect.stringContaining('This runner has no folder lab/none')])
  for (const [args, message] of [
    [['finetune', ...FINETUNE, '--task', 'boolq'], /--output_dir, or with --as/], [['finetune', ...FINETUNE, '--task', 'boolq', '--as', 'lab/x@1.0.0', '--output_dir', 'x'], /say two things/], [['finetune', ...FINETUNE, '--task', 'boolq', '--as', 'lab/x'], /does not name the version/],
    [['evolve', join(folder, 'config.yaml'), '--as', 'lab/tiny@3.0'], /Name the parent/], [['evaluate', '--model', 'lab/tiny@2.0', '--peft', folder], /--peft is for a model in a folder/], [['evaluate', '--model', folder, '--patch', 'lab/kind'], /--patch is for a model of a registry/],
  ] as const) {
    const refused = await run(...args)
    expect([args, refused.code, refused.stderr]).toEqual([args, 2, expect.stringMatching(message)])
  }
}, 300_000)
