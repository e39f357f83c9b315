import type { LoraConfig } from './adapter-config.ts'
import type { AdapterTensor } from './adapter.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'
import { isOutputHead } from './vocabulary-layers.ts'

/** Trained rows of an embedding (`trainable_token_indices`): values, not differences. */
export interface TokenRows {
  readonly module: string
  /** (tokens, dimension) */
  readonly tensor: AdapterTensor
  /** The token of each row. */
  readonly indices: readonly number[]
  /**
   * Whether PEFT ties these rows to the other end of a model with tied embeddings: it does so for the input embedding,
   * unless the config trains other tokens of the head.
   */
  readonly followsTies: boolean
}

/** Finds the tokens of each tensor of rows. */
export function readTokenRows(config: LoraConfig, tensors: readonly { readonly module: string; readonly tensor: AdapterTensor }[]): { rows: TokenRows[]; reasons: Reason[] } {
  const wanted = config.trainable_token_indices
  const rows: TokenRows[] = []
  const reasons: Reason[] = []
  const taken = new Set<string>()
  for (const { module, tensor } of tensors) {
    const key = Array.isArray(wanted) ? '' : keyOf(module, wanted ?? {})
    const indices = Array.isArray(wanted) ? wanted : key === null ? null : wanted![key]!
    // A list is for the one input embedding, and each key of a dict for one layer.
    const problem = key === null || indices === null ? 'adapter_config.json does not say of which tokens' : taken.has(key) ? 'there are others for the same tokens' : rowsProblem(indices, tensor)
    if (key !== null) taken.add(key)
    if (problem !== null || indices === null) reasons.push(refuseRows(`The adapter holds trained token rows (${tensor.name}), but ${problem}.`, tensor, indices))
    else rows.push({ module, tensor, indices, followsTies: Array.isArray(wanted) || headTokens(wanted ?? {}).every((others) => others.join() === indices.join()) })
  }
  if (wanted !== null && tensors.length === 0 && (Array.isArray(wanted) ? wanted.length : Object.keys(wanted).length) > 0) {
    reasons.push(refusal('trainable-tokens', 'The config trains rows of single tokens (`trainable_token_indices`), but the adapter holds none.', { remedy: 'Save the adapter with PEFT\'s `save_pretrained`.' }))
  }
  return { rows, reasons }
}

/** PEFT takes a key for every module whose path ends with it. */
function keyOf(module: string, wanted: Readonly<Record<string, readonly number[]>>): string | null {
  const keys = Object.keys(wanted).filter((key) => module.endsWith(key))
  return keys.length === 1 ? keys[0]! : null
}

function headTokens(wanted: Readonly<Record<string, readonly number[]>>): (readonly number[])[] {
  return Object.entries(wanted).filter(([key]) => isOutputHead(key)).map(([, indices]) => indices)
}

function rowsProblem(indices: readonly number[], { shape }: AdapterTensor): string | null {
  if (shape.length !== 2 || shape[0] !== indices.length || shape[1] === 0) return 'there are not as many as tokens in trainable_token_indices'
  if (indices.some((index) => index < 0)) return 'trainable_token_indices has a negative token'
  return new Set(indices).size === indices.length ? null : 'trainable_token_indices has a token twice, so that the order of writing would decide'
}

function refuseRows(message: string, { name, shape }: AdapterTensor, indices: readonly number[] | null): Reason {
  return refusal('trainable-tokens', message, {
    tensor: name, ...(indices === null ? {} : { expected: `${indices.length} rows` }), found: `${shape[0] ?? 0} rows`, remedy: 'Train and save with each token once in trainable_token_indices.',
  })
}
