import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { readFolder } from '../merge/stored-tensors.ts'
import { ROOT } from '../setup/registry.ts'
import { LLAMA, Research } from './research.ts'

/** Each run of Python imports for seconds, and for many where the machine is busy. */
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 })

const BASE = `${LLAMA}/base`

let research: Research

beforeAll(async () => {
  research = await Research.start()
  const lines = (await readFile(join(ROOT, 'tests/fixtures/eval/speech.jsonl'), 'utf8')).trim().split('\n').slice(0, 80)
  const texts = lines.map((line) => (JSON.parse(line) as { prompt: string }).prompt)
  await research.write('data/notes/train.jsonl', texts.map((text) => ({ text })))
  await research.write('data/questions/train.jsonl', texts.slice(0, 8).map((text) => ({ instruction: 'What is it?', input: text, output: 'A word.' })))
  await research.write('data/talk/train.jsonl', texts.slice(8, 16).map((text) => ({ conversations: [{ from: 'human', value: text }, { from: 'gpt', value: 'I see.' }] })))
})
afterAll(() => research.close())

const evolve = (config: string, output: string) => ['evolve', config, '--model_name_or_path', BASE, '--data', research.path('data'), '--output_dir', research.path(output)]

test('all weights learn packed text; everything else of the model stays what it was', async () => {
  const config = await research.write('full.yaml', `
base_model: lab/tiny
datasets: [{path: lab/notes, type: completion}]
sequence_len: 96
sample_packing: true
val_set_size: 0.1
micro_batch_size: 2
num_epochs: 2
learning_rate: 1e-3
lr_scheduler: cosine
warmup_ratio: 0.1
gradient_checkpointing: true
evals_per_epoch: 1
seed: 3
flash_attention: true
wandb_project:
`)
  const { code, stdout, stderr } = await research.run([...evolve(config, 'full'), '--json'])
  expect([code, stderr]).toEqual([0, expect.stringContaining('Without effect here: flash_attention.')])
  const { training } = JSON.parse(stdout)
  expect(training).toMatchObject({ data: { source: 'folder', examples: 80, left_out: 0, digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) }, options: { lora: null, sample_packing: true, processes: 1 }, device: expect.stringContaining('CPU') })
  expect(training.validation.length).toBeGreaterThanOrEqual(2)
  expect(training.validation.at(-1).loss).toBeLessThan(training.validation[0].loss)
  expect(training.curve).toHaveLength(training.steps)

  for (const name of ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json']) {
    expect([name, (await readFile(research.path('full', name))).equals(await readFile(join(BASE, name)))]).toEqual([name, true])
  }
  const [before, after] = [await readFolder(BASE), await readFolder(research.path('full'))]
  expect([...after.keys()].sort()).toEqual([...before.keys()].sort())
  for (const [name, { dtype, shape, bytes }] of after) {
    expect([name, dtype, shape]).toEqual([name, before.get(name)!.dtype, before.get(name)!.shape])
    if (!name.includes('norm')) expect([name, bytes.equals(before.get(name)!.bytes)]).toEqual([name, false])
  }
  expect(JSON.parse(await readFile(research.path('full/training.json'), 'utf8'))).toEqual(training)
})

test('a LoRA on instructions and conversations is merged: what it aims at has changed, and nothing else', async () => {
  const config = await research.write('lora.yaml', `
base_model: ${BASE}
datasets:
  - {path: lab/questions, type: alpaca}
  - {path: lab/talk, type: sharegpt}
chat_template: chatml
adapter: lora
lora_r: 4
lora_alpha: 8
lora_target_modules: [q_proj, down_proj]
sequence_len: 256
micro_batch_size: 4
max_steps: 3
learning_rate: 1e-2
`)
  const { training } = await research.ok('evolve', config, '--data', research.path('data'), '--output_dir', research.path('lora'))
  expect(training).toMatchObject({ steps: 3, data: { examples: 16, left_out: 0 }, options: { lora: { r: 4, target_modules: ['q_proj', 'down_proj'] } } })
  const [before, after] = [await readFolder(BASE), await readFolder(research.path('lora'))]
  const changed = [...after].filter(([name, { bytes }]) => !bytes.equals(before.get(name)!.bytes)).map(([name]) => name)
  expect(changed.sort()).toEqual([0, 1, 2, 3].flatMap((layer) => [`model.layers.${layer}.mlp.down_proj.weight`, `model.layers.${layer}.self_attn.q_proj.weight`]))
})

test('the four configurations read their datasets, and learn what the assistant says', async () => {
  await research.write('paper/OpenOrca/train.jsonl', [{ system_prompt: 'Be brief.', question: 'Is water wet?', response: 'Yes.' }])
  await research.write('paper/SlimOrca/train.jsonl', [{ conversations: [{ from: 'system', value: 'Be brief.' }, { from: 'human', value: 'Is water wet?' }, { from: 'gpt', value: 'Yes.' }] }])
  await research.write('paper/Open-Platypus/train.jsonl', [{ instruction: 'Is water wet?', input: '', output: 'Yes.' }])
  await research.write('paper/alpaca-gpt4/train.jsonl', [{ instruction: 'Is it wet?', input: 'Water', output: 'Yes.' }, { instruction: 'x'.repeat(9000), input: '', output: 'Too long.' }])
  const below = 'Below is an instruction that describes a task'
  const end = 'Write a response that appropriately completes the request.\n\n### Instruction:\n'
  const row = (context: string, learned: string) => ({ lora: true, left_out: 0, rows: [{ context, learned }] })
  expect(await research.python('research_corpora.py', BASE, research.path('paper'))).toEqual({
    openorca: row('### System:\nBe brief.\n### Human:\nIs water wet?\n### Assistant:\n', 'Yes.</s>'),
    slimorca: row('<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs water wet?<|im_end|>\n<|im_start|>assistant\n', 'Yes.<|im_end|>\n</s>'),
    openplatypus: row(`${below}. ${end}Is water wet?\n\n### Response:\n`, 'Yes.</s>'),
    alpacagpt4: { ...row(`${below}, paired with an input that provides further context. ${end}Is it wet?\n\n### Input:\nWater\n\n### Response:\n`, 'Yes.</s>'), left_out: 1 },
  })
})

test('texts in one pack do not see each other', async () => {
  const { packs, packed, alone, seen_together } = await research.python('research_packing.py', BASE)
  expect(packs).toBe(1)
  expect(packed).toBeCloseTo(alone, 4)
  expect(Math.abs(seen_together - alone)).toBeGreaterThan(0.1)
})
