/** The options of a fine-tuning, by the names that the paper's scripts gave them. */
export interface FinetuneOptions {
  /** Tokens of an example; longer ones are cut. */
  readonly max_length: number
  readonly batch_size: number
  readonly num_workers: number
  readonly rank: number
  readonly lora_alpha: number
  readonly lora_dropout: number
  readonly lr: number
  readonly num_epochs: number
  readonly seed: number
  /** Names of modules; null: those that PEFT takes for the architecture. */
  readonly target_modules: readonly string[] | null
  readonly gradient_accumulation_steps: number
  readonly gradient_checkpointing: boolean
  readonly bf16: boolean
  /** Ends the training before its epochs; null: it does not. */
  readonly max_steps: number | null
  /** Steps from one checkpoint to the next. */
  readonly save_steps: number
}

/** How a patch is trained. */
export interface FinetuneSpec {
  /** `org/name@version`. */
  readonly base: string
  /** One of PortLLM's tasks, or the name in `taskFile`. */
  readonly task: string
  /** YAML of a task of one's own (task-file.ts). */
  readonly taskFile: string | null
  /** `organization/name` of a folder of the runner's; null: the task's own data. */
  readonly data: string | null
  readonly options: FinetuneOptions
}

/** How a model version is trained further. */
export interface EvolveSpec {
  /** `org/name@version`. */
  readonly parent: string
  /** In Axolotl's form (evolve-config.ts). */
  readonly config: string
  /** `organization/name` of a folder of the runner's; null: the datasets that the configuration names. */
  readonly data: string | null
}

/** What a training says of itself; also in `training.json` of the version that it made. */
export interface TrainingRecord {
  readonly task?: string | null
  /** What was trained on or further: `weights` is the digest of its safetensors files. */
  readonly base?: { readonly name: string; readonly weights: string }
  readonly data: {
    readonly source: string
    readonly digest: string
    readonly examples: number
    /** Examples that were too long, and were cut or left out. */
    readonly cut?: number
    readonly left_out?: number
  }
  /** All settings, with their defaults. */
  readonly options: Readonly<Record<string, unknown>>
  readonly versions: Readonly<Record<string, string>>
  readonly curve: readonly { readonly step: number; readonly epoch: number; readonly loss: number; readonly learning_rate: number }[]
  /** Losses of held-out data. */
  readonly validation?: readonly { readonly step: number; readonly epoch: number; readonly loss: number }[]
  readonly steps: number
  readonly peak_memory_bytes: number
  readonly wall_seconds: number
  /** Seconds of all devices together. */
  readonly device_seconds: number
  readonly device: string
}
