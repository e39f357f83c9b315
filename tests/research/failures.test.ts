import { spawnSync } from 'node:child_process'
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { LLAMA, Research } from './research.ts'

const TASK = `
task: number
output_type: multiple_choice
training_split: train
validation_split: validation
doc_to_text: "{{text}}"
doc_to_choice: ["a", "b"]
doc_to_target: "{{label}}"
metric_list: [{metric: acc}]
`
const BASE = `${LLAMA}/base`

/** Each run of Python imports for seconds, and for many where the machine is busy. */
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 })

let research: Research

beforeAll(async () => {
  research = await Research.start()
  await research.write('data/train.jsonl', [{ text: 'one', label: 0 }, { text: 'two', label: 1 }])
  await research.write('task.yaml', TASK)
})
afterAll(() => research.close())

const finetune = (output: string, ...more: string[]) => ['finetune', '--task_file', research.path('task.yaml'), '--data', research.path('data'), '--model_name_or_path', BASE, '--output_dir', research.path(output), ...more]

test('wrong usage is said before Python is started', async () => {
  const refusals = [
    [['finetune', '--task', 'boolq', '--model_name_or_path', 'none', '--output_dir', 'out'], 4, /--model_name_or_path none: there is no such folder/],
    [['finetune', '--model_name_or_path', BASE, '--output_dir', 'out'], 2, /Name either a task/],
    [finetune('out', '--rank', '0'), 2, /whole number from 1/],
    [finetune('out', '--lora_dropout', '1'), 2, /a number from 0 to 0\.999/],
    [finetune('data'), 5, /exists and is not empty/],
    [['evolve', research.path('task.yaml'), '--output_dir', 'out'], 2, /base_model \(undefined\) is no folder here/],
    [['evaluate', '--model', BASE, '--tasks', 'boolq,,rte'], 2, /names with commas between/],
    [['evaluate', '--model', BASE, '--tasks', 'boolq', '--data', 'none'], 4, /--data none: there is no such folder/],
  ] as const
  for (const [args, code, message] of refusals) {
    const ended = await research.run(args)
    expect([args, ended.code]).toEqual([args, code])
    expect(ended.stderr).toMatch(message)
  }
})

test('a loss that is not a number ends the training, and leaves nothing behind', async () => {
  const error = await research.fails(...finetune('nan', '--lr', '1e35', '--lora_alpha', '1e6', '--target_modules', 'all-linear'))
  expect(error).toMatchObject({ exit: 1, code: 'nan_loss', message: expect.stringMatching(/The loss became nan at step \d+\. A smaller learning rate .* 1e\+35/) })
  expect((await readdir(research.folder)).filter((name) => name.startsWith('nan'))).toEqual([])
})

test('data that are not there, or do not fit the task', async () => {
  expect(await research.fails('evaluate', '--model', BASE, '--tasks', 'boolq')).toMatchObject({ exit: 1, code: 'no_data', message: expect.stringMatching(/The data of .* cannot be had from the Hub: .* Name a folder/) })
  expect(await research.fails('evaluate', '--model', BASE, '--tasks', 'number', '--include_path', research.folder, '--data', research.path('data'))).toMatchObject({ code: 'no_data', message: expect.stringContaining('needs validation.jsonl') })
  await research.write('other/train.jsonl', [{ words: 'one', label: 0 }])
  expect(await research.fails(...finetune('out', '--data', research.path('other')))).toMatchObject({ code: 'no_data', message: expect.stringContaining("do not fit the task number: 'text' is undefined") })
})

test('a tokenizer of another model', async () => {
  const folder = research.path('mismatch')
  await cp(BASE, folder, { recursive: true })
  const tokenizer = JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8'))
  for (let id = 1024; id < 1100; id++) tokenizer.model.vocab[`word${id}`] = id
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  expect(await research.fails(...finetune('out', '--model_name_or_path', folder))).toMatchObject({ exit: 1, code: 'tokenizer_mismatch', message: expect.stringContaining('has 1100 tokens, but the model has embeddings for 1024') })
})

test('a full disk ends the training, and the same command goes on once there is room', async ({ skip }) => {
  const disk = research.path('disk')
  await mkdir(disk)
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=700k', 'tmpfs', disk]).status !== 0) return skip('this user cannot mount a file system of a size')
  try {
    const args = finetune('disk/out', '--target_modules', 'all-linear', '--rank', '16', '--max_steps', '3', '--save_steps', '1')
    expect(await research.fails(...args)).toMatchObject({ exit: 9, code: 'disk_full', message: expect.stringMatching(/The disk is full.*goes on at the last checkpoint/) })
    expect(spawnSync('mount', ['-o', 'remount,size=64m', disk]).status).toBe(0)
    expect((await research.ok(...args)).training.steps).toBe(3)
  } finally {
    spawnSync('umount', [disk])
    await rm(disk, { recursive: true, force: true })
  }
})

/** Code and words of what is said, by the names of research_refusals.py. */
const SAID: Readonly<Record<string, readonly [code: string, words: string]>> = {
  'configuration: unknown key': ['bad_config', 'wrong.yaml has a key that is not known here: bananas.'],
  'configuration: key of Axolotl that is not honoured': ['bad_config', 'not known here: neftune_noise_alpha.'],
  'configuration: turned on, but not done here': ['bad_config', 'load_in_4bit of wrong.yaml is True. What it turns on is not done here'],
  'configuration: another optimizer': ['bad_config', "optimizer of wrong.yaml is 'adamw_bnb_8bit', which is not installed here; adamw_torch"],
  'configuration: another scheduler': ['bad_config', "lr_scheduler of wrong.yaml is 'rex'; it has to be one of linear, cosine,"],
  'configuration: a number that is none': ['bad_config', "weight_decay of wrong.yaml is 'much'; it has to be a number"],
  'configuration: both warmups': ['bad_config', 'both warmup_steps and warmup_ratio'],
  'configuration: another tokenizer': ['bad_config', 'tokenizer_config of wrong.yaml names another model'],
  'configuration: no datasets': ['bad_config', 'datasets of wrong.yaml has to be a list'],
  'configuration: another type': ['bad_config', "The type of dataset 1 of wrong.yaml is 'pygmalion'; known are completion, alpaca,"],
  'configuration: a path of this machine': ['bad_config', "The path of dataset 1 of wrong.yaml is '/etc'"],
  'configuration: a path upwards': ['bad_config', "The path of dataset 1 of wrong.yaml is '../../etc'"],
  'configuration: unknown key of a dataset': ['bad_config', 'not known here: data_files.'],
  'configuration: not a mapping': ['bad_config', 'wrong.yaml is not a mapping'],
  'task: code': ['bad_task', '!function, which runs code, is not taken'],
  'task: another file': ['bad_task', 'not known here: include.'],
  "task: loader's arguments": ['bad_task', 'not known here: dataset_kwargs.'],
  'task: a builder that reads files': ['bad_task', "'json', which is no dataset of the Hub"],
  'task: a metric of the Hub': ['bad_task', "names 'someone/metric', which is no metric of lm-eval's"],
  'task: a metric fetched as code': ['bad_task', 'not known here: hf_evaluate.'],
  'task: generation with code of the Hub': ['bad_task', 'not known here: custom_generate, trust_remote_code.'],
  'task: no name': ['bad_task', 'has no task, which is needed'],
  'task: no YAML': ['bad_task', 'is not plain YAML'],
  'task: a template that leaves its sandbox': ['bad_task', 'is unsafe'],
  'library: no memory': ['out_of_memory', 'Use a smaller batch_size'],
  'library: no memory on a GPU': ['out_of_memory', 'Tried to allocate 2.00 GiB'],
  'library: no room': ['disk_full', 'The disk is full'],
  'library: no room for PyTorch': ['disk_full', 'The disk is full'],
}

test('configurations, task files and errors of libraries are explained one by one', async () => {
  const found: Record<string, { code: string; message: string }> = await research.python('research_refusals.py', research.folder)
  expect(Object.keys(found).sort()).toEqual(Object.keys(SAID).sort())
  for (const [what, { code, message }] of Object.entries(found)) expect([what, code, message]).toEqual([what, SAID[what]![0], expect.stringContaining(SAID[what]![1])])
})
