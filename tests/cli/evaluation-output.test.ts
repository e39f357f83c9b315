import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { fileList, newToken, publish, putFiles } from '../contract/harness.ts'
import { digests, eventually, startCommandLine, type CommandLine } from './command-line.ts'

/** More than one piece of a download. */
const ANSWERS = Buffer.alloc(20 * 1024 * 1024, '{"doc_id":0,"acc":1}\n')
const FILES = { 'results.json': '{"results":[]}\n', 'samples_boolq.jsonl': ANSWERS, 'samples_empty.jsonl': '' }
const EXPECTED = Object.fromEntries(Object.entries(FILES).map(([path, content]) => [path, createHash('sha256').update(content).digest('hex')]))
const EVALUATE = ['evaluate', '--model', 'lab/tiny@1.0', '--tasks', 'boolq']

let cli: CommandLine

beforeAll(async () => {
  // The evaluation is done by a stand-in for a runner: what it recorded is what matters.
  cli = await startCommandLine({ startRunners: false })
  const { registry } = cli
  await registry.ok('createOrganization', { body: { name: 'lab' } })
  await publish(registry, { kind: 'model', org: 'lab', name: 'tiny', version: '1.0', files: { 'config.json': '{}' } })
  expect((await registry.call('requestEvaluation', { body: { target: 'lab/tiny@1.0', tasks: ['boolq'] } })).status).toBe(202)
  const { job, token } = await registry.ok('claimJob', { token: await newToken(registry, ['runner']), body: { kinds: ['evaluate'], waitSeconds: 5, runner: { name: 'test' } } })
  const params = { id: job.id }
  await putFiles(await registry.ok('requestOutputs', { params, token, body: { files: fileList(FILES) } }), FILES)
  const scores = [{ task: 'boolq', version: '2.0', metric: 'acc', filter: 'none', value: 0.75, stderr: 0.02, samples: 400, higher_is_better: true }]
  await registry.ok('completeJob', { params, token, body: { result: { scores, files: fileList(FILES), versions: {}, device: 'cpu', seconds: 1 } } })
})
afterAll(() => cli.close())

function isTransfer({ path }: { path: string }): boolean {
  return /^\/v1\/evaluations\/[^/]+\/files\//.test(path)
}

test('what a registry has recorded of an evaluation is fetched whole, and not over something else', async () => {
  const output = join(cli.folder, 'whole')
  const answer = await cli.ok(...EVALUATE, '--output', output)
  expect(answer).toMatchObject({ output, fetchedBytes: Object.values(FILES).reduce((sum, content) => sum + content.length, 0), result: { scores: [{ value: 0.75 }] } })
  expect(await digests(output)).toEqual(EXPECTED)
  const again = await cli.run([...EVALUATE, '--output', output])
  expect([again.code, again.stderr]).toEqual([5, expect.stringContaining('--force')])
  await writeFile(join(output, 'other'), 'x')
  expect((await cli.run([...EVALUATE, '--output', output, '--force'])).stdout).toContain(output)
  expect(await digests(output)).toEqual(EXPECTED)
  const contradictory = await cli.run([...EVALUATE, '--output', join(cli.folder, 'never'), '--no-wait'])
  expect([contradictory.code, contradictory.stderr]).toEqual([2, expect.stringContaining('--no-wait')])
})

test('killed in the middle, it goes on and fetches nothing twice', async () => {
  const output = join(cli.folder, 'killed')
  let seen = 0
  cli.proxy.decide = (passing) => (isTransfer(passing) && ++seen > 2 ? 'stall' : 'pass')
  let child: ChildProcess | undefined
  const ended = cli.run([...EVALUATE, '--output', output], { onStart: (started) => (child = started) })
  await eventually(() => seen > 2)
  // The two that passed are in the journal once they are written.
  await eventually(async () => (await readFile(join(`${output}.partial`, '.portllm-get'), 'utf8')).split('\n+').length === 3)
  child!.kill('SIGKILL')
  await ended
  await expect(stat(output)).rejects.toThrow('ENOENT')
  cli.proxy.reset()
  const again = await cli.ok(...EVALUATE, '--output', output)
  // Four pieces in all: one of the results, three of the answers.
  expect(cli.proxy.requests.filter(isTransfer)).toHaveLength(2)
  expect(again.fetchedBytes).toBeLessThan(ANSWERS.length)
  expect(await digests(output)).toEqual(EXPECTED)
  expect(await readdir(cli.folder)).not.toContain('killed.partial')
})

test('bytes that are wrong at their source are never given a name', async () => {
  const output = join(cli.folder, 'wrong')
  await mkdir(output)
  cli.proxy.decide = (passing) => (isTransfer(passing) ? 'flip-first-byte' : 'pass')
  const refused = await cli.run([...EVALUATE, '--output', output, '--json'])
  expect([refused.code, refused.json.error.code]).toEqual([8, 'damaged'])
  cli.proxy.reset()
  expect(await readdir(output)).toEqual([])
})

test('several patches are asked for in their order, with their weights', async () => {
  const { registry } = cli
  for (const name of ['first', 'second']) await publish(registry, { kind: 'patch', org: 'lab', name, version: '1.0.0', base: 'lab/tiny@1.0', files: { 'adapter_model.safetensors': Buffer.alloc(50, name) } })
  const { evaluation } = await cli.ok(...EVALUATE, '--patch', 'lab/second@^1:0.5', '--patch', 'lab/first', '--no-wait')
  const asked = await registry.ok('getEvaluation', { params: { id: evaluation } })
  expect(asked).toMatchObject({ state: 'queued', patch: null, patches: [{ reference: 'lab/second@1.0.0', weight: 0.5 }, { reference: 'lab/first@1.0.0', weight: 1 }], spec: { how: 'merged' } })
})
