import { cp, readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { ROOT } from '../setup/registry.ts'
import { LLAMA, Research } from './research.ts'

/** Each run of Python imports for seconds, and for many where the machine is busy. */
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 })

const QUESTIONS = 100
const EXAMPLES = 160

interface Sample { resps: [[number, boolean]][]; acc: number }

let research: Research
let page: string

beforeAll(async () => {
  research = await Research.start()
  page = await readFile(join(ROOT, 'docs/research.md'), 'utf8')
  const rows = (await readFile(join(ROOT, 'tests/fixtures/eval/kind.jsonl'), 'utf8')).trim().split('\n').map((line) => JSON.parse(line) as { prompt: string })
  await cp(`${LLAMA}/base`, research.path('v1'), { recursive: true })
  await research.write('data/kind/train.jsonl', rows.slice(QUESTIONS, QUESTIONS + EXAMPLES))
  await research.write('data/kind/validation.jsonl', rows.slice(0, QUESTIONS))
  await research.write('data/notes/train.jsonl', rows.slice(-200).map(({ prompt }) => ({ text: prompt })))
  const [task, evolution] = blocks('yaml')
  await research.write('tasks/kind.yaml', task!)
  await research.write('notes.yaml', evolution!)
})
afterAll(() => research.close())

/** The page's blocks of a language. */
function blocks(language: string): string[] {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map(([, text]) => text!)
}

test('the lines of the page do what it says: evolve, fine-tune, port, evaluate', async () => {
  const lines = blocks('sh')[0]!.trim().split('\n').map((line) => line.split(' ').slice(1))
  expect(lines.map(([verb]) => verb)).toEqual(['evolve', 'finetune', 'merge', 'evaluate', 'evaluate'])
  const [evolved, trained, merged, alone, ported] = [await research.ok(...lines[0]!), await research.ok(...lines[1]!), await research.ok(...lines[2]!), await research.ok(...lines[3]!), await research.run(lines[4]!)]
  expect(evolved.training.steps).toBe(5)
  expect(trained.training).toMatchObject({ task: 'kind', data: { examples: EXAMPLES, source: 'folder' }, options: { rank: 8, lr: 5e-3, seed: 1234, loss: 'answer' } })
  expect(trained.training.curve.at(-1).loss).toBeLessThan(trained.training.curve[0].loss)
  expect(merged.changedTensors).toBe(8)
  expect(alone.results).toEqual([{ task: 'kind', version: '1.0', metric: 'acc', filter: 'none', value: expect.any(Number), stderr: expect.any(Number), samples: QUESTIONS, higher_is_better: true }])
  expect(ported).toMatchObject({ code: 0, stdout: expect.stringMatching(/^task +version +metric +score +questions\nkind +1\.0 +acc +0\.\d{3} ± 0\.0\d\d +100$/m) })
  expect((await readdir(research.path('scores'))).sort()).toEqual(['results.json', 'samples_kind.jsonl'])
  expect(JSON.parse(await readFile(research.path('kind/adapter_config.json'), 'utf8'))).toMatchObject({ base_model_name_or_path: 'v1', r: 8, target_modules: ['q_proj', 'v_proj'] })
})

test('a model merged by portllm scores what PEFT does on the same target, but for rounding', async () => {
  const evolved = `${LLAMA}/evolved`
  const patch = `${LLAMA}/patch-kind`
  await research.ok('merge', evolved, patch, '--output', research.path('ours'))
  const evaluate = async (output: string, ...what: string[]): Promise<Sample[]> => {
    await research.ok('evaluate', ...what, '--tasks', 'kind', '--include_path', research.path('tasks'), '--data', research.path('data'), '--dtype', 'float32', '--batch_size', '32', '--output', research.path(output))
    return (await research.read(`${output}/samples_kind.jsonl`)) as Sample[]
  }
  const [plain, peft, ours] = [await evaluate('scores-plain', '--model', evolved), await evaluate('scores-peft', '--model', evolved, '--peft', patch), await evaluate('scores-merged', '--model', research.path('ours'))]
  const likelihoods = (samples: Sample[]) => samples.flatMap(({ resps }) => resps.map(([[value]]) => value))
  const distance = (a: Sample[], b: Sample[]) => Math.max(...likelihoods(a).map((value, index) => Math.abs(value - likelihoods(b)[index]!)))
  const accuracy = (samples: Sample[]) => samples.reduce((sum, { acc }) => sum + acc, 0) / samples.length

  // The merged weights are rounded to bfloat16 once; the patch itself is hundreds of times that.
  expect(likelihoods(ours)).toHaveLength(4 * QUESTIONS)
  expect(distance(ours, peft)).toBeLessThan(0.1)
  expect(distance(plain, peft)).toBeGreaterThan(10 * distance(ours, peft))
  expect(Math.abs(accuracy(ours) - accuracy(peft))).toBeLessThanOrEqual(0.01)
  expect(accuracy(ours)).toBeGreaterThan(accuracy(plain) + 0.3)
})

test('a patch for another model is refused, not applied in part', async () => {
  const error = await research.fails('evaluate', '--model', join(ROOT, 'tests/fixtures/mistral/base'), '--peft', `${LLAMA}/patch-speech`, '--tasks', 'kind', '--include_path', research.path('tasks'), '--data', research.path('data'))
  expect(error).toMatchObject({ exit: 1, code: 'bad_model', message: expect.stringContaining('does not fit the model') })
})
