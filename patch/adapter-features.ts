import type { AdapterConfig, LoraConfig } from './adapter-config.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'

/** Values of `init_lora_weights` that leave the base's weights as they were (PEFT 0.21). */
const HARMLESS_INITIALISATIONS: ReadonlySet<string | boolean> = new Set([true, false, 'gaussian', 'eva', 'orthogonal', 'mica'])

/** Values of `init_lora_weights` that change the base when training starts, and whose adapter is a difference to that. */
const BASE_CHANGING_INITIALISATIONS: readonly [RegExp, string][] = [
  [/^pissa(_niter_\d+)?$/, 'PiSSA'],
  [/^olora$/, 'OLoRA'],
  [/^corda$/, 'CorDA'],
  [/^loftq$/, 'LoftQ'],
  [/^lora_ga$/, 'LoRA-GA'],
]

interface Feature {
  readonly code: Reason['code']
  readonly title: string
  readonly isSet: (config: LoraConfig) => boolean
  readonly remedy: string
}

const CONVERT = 'Save the adapter again with `model.save_pretrained(path, path_initial_model_for_weight_conversion=…)`, which turns it into plain LoRA.'
const RETRAIN = 'Train and publish a plain LoRA instead.'

const FEATURES: readonly Feature[] = [
  { code: 'dora', title: 'DoRA (`use_dora`)', isSet: (config) => config.use_dora, remedy: RETRAIN },
  { code: 'lora-bias', title: 'a trained LoRA bias (`lora_bias`)', isSet: (config) => config.lora_bias, remedy: RETRAIN },
  { code: 'trained-bias', title: 'trained biases (`bias` is not "none")', isSet: (config) => config.bias !== 'none', remedy: 'Train with `bias="none"`: a full copy of the biases would overwrite what the target has learned.' },
  { code: 'modules-to-save', title: 'fully trained modules (`modules_to_save`)', isSet: (config) => isFilled(config.modules_to_save), remedy: 'Train without `modules_to_save`: full copies would overwrite what the target has learned.' },
  { code: 'trainable-tokens', title: 'trained token rows (`trainable_token_indices`)', isSet: (config) => isFilled(config.trainable_token_indices), remedy: 'Train without `trainable_token_indices`.' },
  { code: 'target-parameters', title: 'LoRA on bare parameters (`target_parameters`)', isSet: (config) => isFilled(config.target_parameters), remedy: 'Train with `target_modules` on linear layers.' },
  { code: 'activated-lora', title: 'activated LoRA (`alora_invocation_tokens`)', isSet: (config) => isSet(config.alora_invocation_tokens), remedy: 'It cannot be merged at all, since it acts on some tokens only; serve it as an adapter.' },
  { code: 'arrow', title: 'Arrow routing (`arrow_config`)', isSet: (config) => isSet(config.arrow_config), remedy: 'It cannot be merged, since it chooses adapters for each token; serve it as an adapter.' },
  { code: 'kasa', title: 'KaSA (`kasa_config`)', isSet: (config) => isSet(config.kasa_config), remedy: RETRAIN },
  { code: 'monteclora', title: 'MonteCLoRA (`monteclora_config`)', isSet: (config) => isSet(config.monteclora_config), remedy: RETRAIN },
  { code: 'bdlora', title: 'block-diagonal LoRA (`use_bdlora`)', isSet: (config) => isSet(config.use_bdlora), remedy: RETRAIN },
  { code: 'qalora', title: 'QALoRA (`use_qalora`)', isSet: (config) => config.use_qalora, remedy: RETRAIN },
  { code: 'velora', title: 'VeLoRA (`velora_config`)', isSet: (config) => isSet(config.velora_config), remedy: RETRAIN },
  { code: 'megatron', title: 'Megatron layers (`megatron_config`)', isSet: (config) => isSet(config.megatron_config), remedy: 'Convert the adapter to the layers of transformers.' },
  { code: 'layer-replication', title: 'replicated layers (`layer_replication`)', isSet: (config) => isFilled(config.layer_replication), remedy: 'Publish the enlarged model as a version of its own and train on that.' },
  { code: 'weight-tying', title: 'tied adapters (`ensure_weight_tying`)', isSet: (config) => config.ensure_weight_tying, remedy: 'Train without `ensure_weight_tying` and without the tied layers.' },
  { code: 'base-changing-initialisation', title: 'CorDA (`corda_config`)', isSet: (config) => isSet(config.corda_config) && config.init_lora_weights !== 'corda', remedy: CONVERT },
  { code: 'base-changing-initialisation', title: 'LoRA-GA (`lora_ga_config`)', isSet: (config) => isSet(config.lora_ga_config) && config.init_lora_weights !== 'lora_ga', remedy: CONVERT },
]

/** A refusal for each thing in the config that this registry cannot merge. */
export function unsupportedFeatures({ peftType, config, unknownKeys }: AdapterConfig): Reason[] {
  if (config === null) {
    return [refusal('peft-type', `The adapter is of the PEFT type ${JSON.stringify(peftType)}; only LORA can be merged.`, { expected: 'LORA', found: peftType, remedy: RETRAIN })]
  }
  const reasons = FEATURES.filter((feature) => feature.isSet(config)).map((feature) => unsupported(feature.code, feature.title, feature.remedy))
  const initialisation = initialisationRefusal(config.init_lora_weights)
  if (initialisation !== null) reasons.push(initialisation)
  for (const key of unknownKeys) {
    const shown = JSON.stringify(key.slice(0, 100))
    reasons.push(refusal('unknown-config-key', `adapter_config.json sets ${shown}, a key that PEFT 0.21 does not know, so it may be a variety that would be read as plain LoRA.`, {
      remedy: `If it has no effect on the weights, remove ${shown} from adapter_config.json.`,
    }))
  }
  return reasons
}

/** A refusal that names a feature. */
export function unsupported(code: Reason['code'], title: string, remedy: string, tensor?: string): Reason {
  return refusal(code, `The adapter uses ${title}, which this registry cannot merge yet.`, { remedy, ...(tensor === undefined ? {} : { tensor }) })
}

function initialisationRefusal(value: string | boolean): Reason | null {
  if (HARMLESS_INITIALISATIONS.has(value)) return null
  for (const [pattern, title] of BASE_CHANGING_INITIALISATIONS) {
    if (typeof value === 'string' && pattern.test(value)) {
      return refusal('base-changing-initialisation', `The adapter was initialised with ${title} (\`init_lora_weights\`), which changed the base when training began; added to a target it would add that change too.`, { found: value, remedy: CONVERT })
    }
  }
  return refusal('unknown-initialisation', `The adapter was initialised with ${JSON.stringify(value)} (\`init_lora_weights\`), of which is not known whether it changed the base.`, { found: String(value), remedy: CONVERT })
}

/** Tensors that belong to a variety, by the end of their name: what the file holds counts, whatever the config says. */
const TENSOR_FEATURES: readonly [RegExp, Reason['code'], string, string][] = [
  [/\.lora_magnitude_vector(\.weight)?$/, 'dora', 'DoRA', RETRAIN],
  [/\.lora_B\.bias$/, 'lora-bias', 'a trained LoRA bias', RETRAIN],
  [/\.(trainable_tokens_delta|trainable_tokens_original)$|\.token_adapter\./, 'trainable-tokens', 'trained token rows', 'Train without `trainable_token_indices`.'],
  [/\.lora_diag$/, 'kasa', 'KaSA', RETRAIN],
  [/\.lora_monteclora_sampler\b/, 'monteclora', 'MonteCLoRA', RETRAIN],
  [/\.lora_velora_/, 'velora', 'VeLoRA', RETRAIN],
  [/\.base_layer\.out_proj\./, 'multihead-attention', 'LoRA on torch.nn.MultiheadAttention', RETRAIN],
  [/\.base_layer\.lora_[AB]\.weight$/, 'target-parameters', 'LoRA on bare parameters', 'Train with `target_modules` on linear layers.'],
  [/\.bias$/, 'trained-bias', 'trained biases', 'Train with `bias="none"`.'],
  [/\.modules_to_save\./, 'modules-to-save', 'fully trained modules', 'Train without `modules_to_save`.'],
  [/^base_model\.model\.(?!.*\.lora_).*\.weight$/, 'modules-to-save', 'fully trained modules', 'Train without `modules_to_save`, and save with `save_embedding_layers=False`.'],
]

/** The refusal for an adapter tensor that is neither a factor nor a copied embedding. */
export function unexpectedTensor(tensor: string): Reason {
  for (const [pattern, code, title, remedy] of TENSOR_FEATURES) {
    if (pattern.test(tensor)) return unsupported(code, title, remedy, tensor)
  }
  return refusal('unknown-adapter-tensor', `The adapter holds the tensor ${tensor}, of which is not known what it does.`, {
    tensor,
    expected: 'base_model.model.<module>.lora_A.weight and the like, as PEFT\'s save_pretrained writes them',
    remedy: 'Save the adapter with PEFT\'s `save_pretrained`.',
  })
}

function isSet(value: unknown): boolean {
  return value !== null && value !== undefined && value !== false
}

/** Set to something that is not an empty list or object. */
function isFilled(value: unknown): boolean {
  return isSet(value) && !(typeof value === 'object' && value !== null && Object.keys(value).length === 0)
}
