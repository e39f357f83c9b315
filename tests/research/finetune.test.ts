import { once } from 'node:events'
import { readFile, readdir, stat } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { LLAMA, Research } from './research.ts'

const ROWS = 16
/** Of " no" and " yes" in the fixture's tokenizer. */
const ANSWER_TOKENS = [1, 2]

/** Rows as the Hub has them. */
const DATA: Readonly<Record<string, (row: number) => object>> = {
  boolq: (row) => ({ passage: `The number ${row} is ${row % 2 === 0 ? 'even' : 'odd'}.`, question: `is ${row} even`, label: row % 2 === 0 ? 1 : 0 }),
  winogrande: (row) => ({ sentence: `Of ${row} birds and a stone the _ could fly away.`, option1: row % 2 === 0 ? 'birds' : 'stone', option2: row % 2 === 0 ? 'stone' : 'birds', answer: row % 2 === 0 ? '1' : '2' }),
}

/** Each run of Python imports for seconds, and for many where the machine is busy. */
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 })

let research: Research

beforeAll(async () => {
  research = await Research.start()
  for (const [task, row] of Object.entries(DATA)) {
    const rows = Array.from({ length: ROWS }, (_, index) => row(index))
    for (const split of ['train', 'validation']) await research.write(`data/${task}/${split}.jsonl`, rows)
  }
})
afterAll(() => research.close())

const finetune = (task: string, output: string, ...more: string[]) => ['finetune', '--task', task, '--data', research.path('data', task), '--model_name_or_path', `${LLAMA}/base`, '--output_dir', research.path(output), '--rank', '4', '--lr', '1e-3', ...more]

const logSumExp = (values: readonly number[]) => Math.log(values.reduce((sum, value) => sum + Math.exp(value), 0))
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

test('the first loss is what lm-eval scores: of the right answer for BoolQ, of its lead over the other option for WinoGrande', async () => {
  await research.ok('evaluate', '--model', `${LLAMA}/base`, '--tasks', 'boolq,winogrande', '--data', research.path('data'), '--num_fewshot', '0', '--dtype', 'float32', '--output', research.path('scores'))
  const scored = async (task: string) => (await research.read(`scores/samples_${task}.jsonl`)).map(({ resps, target, doc }) => ({ likelihoods: resps.map(([[value]]: any) => value as number), right: task === 'boolq' ? target : Number(doc.answer) - 1 }))
  const [boolq, winogrande] = [await scored('boolq'), await scored('winogrande')]
  expect([boolq.length, winogrande.length]).toEqual([ROWS, ROWS])

  // The LoRA adds nothing at the first step, and the batch is all of the data.
  const firstLoss = async (task: string) => (await research.ok(...finetune(task, `first-${task}`, '--batch_size', String(ROWS), '--max_steps', '1'))).training.curve[0].loss
  const total = boolq.reduce((sum, { likelihoods, right }) => sum - likelihoods[right]!, 0)
  const tokens = boolq.reduce((sum, { right }) => sum + ANSWER_TOKENS[right]!, 0)
  expect(await firstLoss('boolq')).toBeCloseTo(total / tokens, 4)
  expect(await firstLoss('winogrande')).toBeCloseTo(mean(winogrande.map(({ likelihoods, right }) => logSumExp(likelihoods) - likelihoods[right]!)), 4)
})

test('killed and begun again, it gives the bytes of a training that nothing interrupted', async () => {
  const args = (output: string) => finetune('boolq', output, '--max_steps', '40', '--save_steps', '5')
  const secrets = { PORTLLM_TOKEN: 'plm_secret', PORTLLM_RUNNER_TOKEN: 'plm_secret', PORTLLM_DATABASE_URL: 'postgres://secret', AWS_SECRET_ACCESS_KEY: 'secret', ANYTHING_ELSE: 'secret' }
  const child = research.spawn(args('killed'), { ...secrets, NO_PROXY: 'passed-on' })
  const checkpoint = research.path('killed.work', 'checkpoints', 'checkpoint-10', 'portllm.json')
  while (child.exitCode === null && !(await exists(checkpoint))) await new Promise((resolve) => setTimeout(resolve, 20))
  const variables = await variablesOfChild(child.pid!)
  child.kill('SIGKILL')
  await once(child, 'close')
  expect(await exists(research.path('killed'))).toBe(false)
  // Models and data may be strangers': Python gets what it needs, and no secret that whoever started it has.
  expect(variables).toMatchObject({ OMP_NUM_THREADS: '1', NO_PROXY: 'passed-on', HF_HOME: research.path('hf'), PATH: expect.any(String) })
  expect(Object.keys(variables).filter((name) => name in secrets || name.startsWith('PORTLLM_'))).toEqual([])
  expect(Object.values(variables).filter((value) => value.includes('secret'))).toEqual([])

  const again = await research.run(args('killed'))
  expect(again).toMatchObject({ code: 0 })
  expect(again.stderr).toMatch(/Going on at step [1-3][05]/)
  const [resumed, whole] = [await contents('killed'), (await research.ok(...args('whole'))) && (await contents('whole'))]
  expect(Object.keys(resumed)).toEqual(['README.md', 'adapter_config.json', 'adapter_model.safetensors', 'training.json'])
  expect(resumed['adapter_model.safetensors']!.equals(whole['adapter_model.safetensors']!)).toBe(true)
  const [a, b] = [resumed, whole].map((files) => JSON.parse(files['training.json']!.toString()))
  expect(a).toEqual({ ...b, peak_memory_bytes: expect.any(Number), wall_seconds: expect.any(Number), device_seconds: expect.any(Number) })
  expect(a.curve.map(({ step }: { step: number }) => step)).toEqual(Array.from({ length: 40 }, (_, step) => step + 1))
  expect(a.curve.at(-1).loss).toBeLessThan(a.curve[0].loss)
  expect(await readdir(research.folder)).not.toContain('killed.work')
})

test('begun again after its last step, it takes no further one', async () => {
  const options = { max_length: 64, batch_size: 4, num_workers: 0, rank: 4, lora_alpha: 8, lora_dropout: 0, lr: 1e-3, num_epochs: 1, seed: 1, target_modules: null, gradient_accumulation_steps: 1, gradient_checkpointing: true, bf16: false, max_steps: 6, save_steps: 5 }
  const spec = await research.write('ended.json', JSON.stringify({ verb: 'finetune', base: `${LLAMA}/base`, output: research.path('ended'), work: research.path('ended.work'), task: { name: 'boolq' }, data: { folder: research.path('data/boolq') }, options }))
  expect(await research.python('research_ended.py', spec)).toEqual({ steps: [6, 6], same: true })
})

test('each of the seven tasks learns the answer of its lm-eval task after its prompt', async () => {
  const rows: Record<string, object> = {
    boolq: { passage: 'Water boils at 100 degrees.', question: 'does water boil', label: 1 },
    sst2: { sentence: 'a gorgeous film', label: 1 },
    mrpc: { sentence1: 'He left.', sentence2: 'He went away.', label: 1 },
    rte: { sentence1: 'A cat sat.', sentence2: 'An animal sat.', label: 0 },
    wnli: { sentence1: 'The cup fell off the table as it was full.', sentence2: 'The table was full.', label: 0 },
    winogrande: { sentence: 'The trophy did not fit the case because the _ was too large.', option1: 'trophy', option2: 'case', answer: '1' },
    gsm8k: { question: 'Two and two?', answer: '2 + 2 = 4\n#### 4' },
  }
  for (const [task, row] of Object.entries(rows)) await research.write(`seven/${task}/train.jsonl`, [row])
  const learned = await research.python('research_prompts.py', `${LLAMA}/base`, research.path('seven'))
  const answer = (context: string, words: string) => ({ loss: 'answer', rows: [[{ context, learned: words }]] })
  expect(learned).toEqual({
    boolq: answer('Water boils at 100 degrees.\nQuestion: does water boil?\nAnswer:', ' yes'),
    sst2: answer('a gorgeous film\nQuestion: Is this sentence positive or negative?\nAnswer:', ' positive'),
    mrpc: answer('Sentence 1: He left.\nSentence 2: He went away.\nQuestion: Do both sentences mean the same thing?\nAnswer:', ' yes'),
    rte: answer('A cat sat.\nQuestion: An animal sat. True or False?\nAnswer:', ' True'),
    wnli: answer('The cup fell off the table as it was full.\nQuestion: The table was full. True or False?\nAnswer:', ' False'),
    winogrande: { loss: 'contrast', rows: [[{ context: 'The trophy did not fit the case because the trophy', learned: ' was too large.' }, { context: 'The trophy did not fit the case because the case', learned: ' was too large.' }]] },
    gsm8k: answer('Question: Two and two?\nAnswer:', ' 2 + 2 = 4\n#### 4</s>'),
  })
})

async function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false)
}

async function contents(output: string): Promise<Record<string, Buffer>> {
  const names = (await readdir(research.path(output))).sort()
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await readFile(research.path(output, name))] as const)))
}

/** The environment of the one process that a process has started. */
async function variablesOfChild(pid: number): Promise<Record<string, string>> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ')
  expect(children).toHaveLength(1)
  const text = await readFile(`/proc/${children[0]}/environ`, 'utf8')
  return Object.fromEntries(text.split('\0').filter((line) => line !== '').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))
}
