import type { FinetuneOptions } from '../../patch/training.ts'

/** What is measured, in full: everything that a result depends on and that is not the program itself. */
export interface Plan {
  readonly format: 'portllm.reproduction/1'
  readonly name: PlanName
  /** `smollm2`: SmolLM2-135M-Instruct from PyPI; `fixture`: the tests' tiny Llama, with the data beside it. */
  readonly model: 'smollm2' | 'fixture'
  readonly seeds: readonly number[]
  /** Examples of each split; balanced over the labels. */
  readonly tasks: Readonly<Record<string, { readonly train: number; readonly test: number }>>
  /** In their order, each continuing the one before; characters of text. */
  readonly evolutions: readonly { readonly text: string; readonly characters: number }[]
  /** Axolotl's words. */
  readonly evolve: Readonly<Record<string, unknown>>
  readonly finetune: Omit<FinetuneOptions, 'seed'>
  readonly evaluate: { readonly batch_size: number }
}

export const PLAN_NAMES = ['tiny', 'small'] as const
export type PlanName = (typeof PLAN_NAMES)[number]

/** Rank, alpha and dropout are the paper's; the learning rate is higher because the epochs are fewer. */
const FINETUNE: Omit<FinetuneOptions, 'seed'> = {
  max_length: 128, batch_size: 8, num_workers: 0, rank: 8, lora_alpha: 16, lora_dropout: 0.1, lr: 5e-4, num_epochs: 1,
  target_modules: null, gradient_accumulation_steps: 1, gradient_checkpointing: false, bf16: true, max_steps: null, save_steps: 20,
}
const SPLITS = { train: 320, test: 240 }
const CHARACTERS = 600_000

export const PLANS: Readonly<Record<PlanName, Plan>> = {
  small: {
    format: 'portllm.reproduction/1', name: 'small', model: 'smollm2', seeds: [1, 2],
    tasks: { spam: SPLITS, films: SPLITS, products: SPLITS, kinds: SPLITS },
    evolutions: ['speeches', 'manuals', 'novel', 'scripture'].map((text) => ({ text, characters: CHARACTERS })),
    evolve: {
      sequence_len: 256, sample_packing: true, micro_batch_size: 4, gradient_accumulation_steps: 1, num_epochs: 1, max_steps: 60, learning_rate: 0.0001,
      lr_scheduler: 'cosine', warmup_steps: 5, optimizer: 'adamw_torch', weight_decay: 0.1, bf16: true, save_steps: 20,
    },
    finetune: FINETUNE,
    evaluate: { batch_size: 16 },
  },
  tiny: {
    format: 'portllm.reproduction/1', name: 'tiny', model: 'fixture', seeds: [1],
    tasks: { kind: { train: 480, test: 120 } },
    evolutions: [{ text: 'docs', characters: 60_000 }],
    evolve: {
      sequence_len: 64, sample_packing: true, micro_batch_size: 8, gradient_accumulation_steps: 1, num_epochs: 1, max_steps: 10, learning_rate: 0.001,
      lr_scheduler: 'cosine', warmup_steps: 1, optimizer: 'adamw_torch', weight_decay: 0.1, bf16: false, save_steps: 5,
    },
    finetune: { ...FINETUNE, lr: 0.005, max_steps: 30, bf16: false },
    evaluate: { batch_size: 32 },
  },
}
