import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { FinetuneOptions, TrainingRecord } from '../patch/training.ts'
import type { TaskScore } from '../patch/evaluation.ts'
import { pythonPath } from './python-environment.ts'
import { pythonVariables } from './python-variables.ts'

/** Of the paper's scripts; `num_workers` is less, since the examples are in memory already. */
export const FINETUNE_DEFAULTS: FinetuneOptions = {
  max_length: 256, batch_size: 4, num_workers: 0, rank: 8, lora_alpha: 16, lora_dropout: 0.1, lr: 1e-4, num_epochs: 10, seed: 1234,
  target_modules: null, gradient_accumulation_steps: 1, gradient_checkpointing: false, bf16: false, max_steps: null, save_steps: 200,
}

/** Where the data come from: the Hub, or `<folder>/<split>.jsonl|json|csv|parquet`, which records call by its name. */
export type DataPlace = { readonly hub: true } | { readonly folder: string; readonly name?: string }

/** All paths are absolute. `num_processes`: null for one on each GPU. */
interface CommonSpec {
  readonly num_processes?: number | null
  readonly data: DataPlace
}

export interface FinetuneRun extends CommonSpec {
  readonly verb: 'finetune'
  readonly base: string
  /** What the patch's files call the base; null: its folder. */
  readonly base_name?: string | null
  readonly output: string
  /** Checkpoints; the next run with the same folder goes on at the last one. The caller removes it in the end. */
  readonly work: string
  readonly task: { readonly name: string } | { readonly file: string }
  readonly options: FinetuneOptions
}

export interface EvolveRun extends CommonSpec {
  readonly verb: 'evolve'
  readonly parent: string
  readonly output: string
  readonly work: string
  /** In Axolotl's form. */
  readonly config: { readonly file: string }
}

export interface EvaluateRun {
  readonly verb: 'evaluate'
  readonly num_processes?: number | null
  readonly model: string
  readonly peft: string | null
  readonly tasks: readonly string[]
  /** Folder of YAML files of tasks of one's own. */
  readonly include: string | null
  /** Null: the tasks' own, from the Hub. Of several tasks each has its folder in it. */
  readonly data: { readonly folder: string } | null
  readonly num_fewshot: number | null
  readonly batch_size: number
  readonly limit: number | null
  readonly seed: number
  readonly dtype?: 'auto' | 'float32' | 'bfloat16' | 'float16'
  readonly output: string
}

export interface TrainResult { readonly training: TrainingRecord }

export interface EvaluateResult {
  readonly results: readonly TaskScore[]
  readonly versions: Readonly<Record<string, string>>
  readonly config: Readonly<Record<string, unknown>>
  readonly device: string
  readonly wall_seconds: number
}

export interface PythonProgress {
  readonly phase: string
  readonly done: number
  readonly total: number
  readonly unit: string
}

export interface PythonWatch {
  /** Aborting it has Python save a checkpoint and end; the promise then rejects with the signal's reason. */
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: PythonProgress) => void
  /** A sentence for the user that is no failure. */
  readonly onNote?: (text: string) => void
  /** A line of the libraries' log. */
  readonly onLog?: (line: string) => void
}

/** What Python says went wrong, in a sentence for the user. */
export class PythonFailure extends Error {
  /** no_data, bad_task, bad_config, bad_model, tokenizer_mismatch, nan_loss, disk_full, out_of_memory or internal. */
  readonly code: string
  readonly retryable: boolean

  constructor(code: string, message: string, retryable: boolean) {
    super(message)
    this.name = 'PythonFailure'
    this.code = code
    this.retryable = retryable
  }
}

/** How long Python may take to save a checkpoint before it is killed. */
const GRACE_MS = 120_000
const PACKAGE = join(import.meta.dirname, 'python')

/**
 * Fine-tunes, evolves or evaluates in a Python process of its own and gives what it reports. Throws PythonFailure, or the
 * reason of the signal. Building the environment at first use takes minutes.
 */
export function runPython(run: FinetuneRun | EvolveRun, watch?: PythonWatch): Promise<TrainResult>
export function runPython(run: EvaluateRun, watch?: PythonWatch): Promise<EvaluateResult>
export async function runPython(run: FinetuneRun | EvolveRun | EvaluateRun, watch: PythonWatch = {}): Promise<TrainResult | EvaluateResult> {
  const python = await pythonPath()
  watch.signal?.throwIfAborted()
  // Its working folder too, so that no name of the Hub is taken for a folder that happens to lie there.
  const own = await mkdtemp(join(tmpdir(), 'portllm-python-'))
  try {
    const spec = join(own, 'spec.json')
    await writeFile(spec, JSON.stringify(run))
    return await follow(python, ['-m', 'portllm_research', run.verb, '--spec', spec], own, watch)
  } finally {
    await rm(own, { recursive: true, force: true })
  }
}

type Line = { progress: PythonProgress } | { note: string } | { result: TrainResult | EvaluateResult } | { failure: { code: string; message: string; retryable: boolean } }

async function follow(python: string, args: readonly string[], cwd: string, { signal, onProgress, onNote, onLog }: PythonWatch): Promise<TrainResult | EvaluateResult> {
  const child = spawn(python, args, { cwd, env: environment(), stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<{ code: number | null; by: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, by) => resolve({ code, by }))
  })
  let kill: NodeJS.Timeout | undefined
  const stop = () => {
    child.kill('SIGTERM')
    kill = setTimeout(() => child.kill('SIGKILL'), GRACE_MS)
  }
  signal?.addEventListener('abort', stop, { once: true })
  if (signal?.aborted) stop()

  const log: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    if (log.push(line) > 20) log.shift()
    onLog?.(line)
  })
  let result: TrainResult | EvaluateResult | undefined
  let failure: PythonFailure | undefined
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as Line
    if ('progress' in line) onProgress?.(line.progress)
    else if ('note' in line) onNote?.(line.note)
    else if ('result' in line) result = line.result
    else failure ??= new PythonFailure(line.failure.code, line.failure.message, line.failure.retryable)
  })
  try {
    const { code, by } = await ended
    if (result !== undefined && code === 0) return result
    signal?.throwIfAborted()
    throw failure ?? unexplained(code, by, log)
  } finally {
    clearTimeout(kill)
    signal?.removeEventListener('abort', stop)
  }
}

function unexplained(code: number | null, by: NodeJS.Signals | null, log: readonly string[]): PythonFailure {
  if (by === 'SIGKILL') return new PythonFailure('out_of_memory', 'Python was killed by the system, as it is where memory runs out. Use a smaller batch_size with more gradient_accumulation_steps, or a smaller max_length.', false)
  return new PythonFailure('internal', `Python ended with ${by ?? `exit code ${code}`} and without a word. Its log ends with:\n${log.join('\n')}`, by !== null)
}

function environment(): NodeJS.ProcessEnv {
  return {
    // PyTorch's threads wait for each other by spinning: where others want the processors too, that is most of their time.
    OMP_WAIT_POLICY: 'PASSIVE',
    ...pythonVariables(process.env),
    PYTHONPATH: PACKAGE,
    PYTHONUNBUFFERED: '1',
    PYTHONDONTWRITEBYTECODE: '1',
    TOKENIZERS_PARALLELISM: 'false',
    HF_HUB_DISABLE_TELEMETRY: '1',
    TQDM_DISABLE: '1',
  }
}
