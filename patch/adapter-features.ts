import type { AdapterConfig, LoraConfig } from './adapter-config.ts'
import type { AdapterModule } from './adapter.ts'
import { describeShape, refusal } from './reason.ts'
import type { Reason } from './resolution.ts'

/** Values of `init_lora_weights` that leave the base's weights as they were (PEFT 0.21). */
const HARMLESS_INITIALISATIONS: ReadonlySet<string | boolean> = new Set([true, false, 'gaussian', 'eva', 'orthogonal', 'mica'])

/** Those that change the base when training starts, and whose change can be made anew from the base alone. */
const REPEATABLE_INITIALISATIONS: ReadonlySet<string | boolean> = new Set(['pissa', 'olora'])

/** Those that change the base in a way that only the training knows, and why. */
const UNREPEATABLE_INITIALISATIONS: readonly [RegExp, string, string][] = [
  [/^pissa_niter_\d+$/, 'PiSSA by a randomised decomposition', 'the random numbers are not in the adapter'],
  [/^corda$/, 'CorDA', 'it used the training data'],
  [/^loftq$/, 'LoftQ', 'it used the quantized base'],
  [/^lora_ga$/, 'LoRA-GA', 'it used the gradients of the training data'],
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
  { code: 'activated-lora', title: 'activated LoRA (`alora_invocation_tokens`)', isSet: (config) => isSet(config.alora_invocation_tokens), remedy: 'It cannot be merged at all, since it acts on some tokens only; serve it as an adapter.' },
  { code: 'arrow', title: 'Arrow routing (`arrow_config`)', isSet: (config) => isSet(config.arrow_config), remedy: 'It cannot be merged, since it chooses adapters for each token; serve it as an adapter.' },
  { code: 'kasa', title: 'KaSA (`kasa_config`)', isSet: (config) => isSet(config.kasa_config), remedy: RETRAIN },
  { code: 'monteclora', title: 'MonteCLoRA (`monteclora_config`)', isSet: (config) => isSet(config.monteclora_config), remedy: RETRAIN },
  { code: 'bdlora', title: 'block-diagonal LoRA (`use_bdlora`)', isSet: (config) => isSet(config.use_bdlora), remedy: RETRAIN },
  { code: 'qalora', title: 'QALoRA (`use_qalora`)', isSet: (config) => config.use_qalora, remedy: RETRAIN },
  { code: 'velora', title: 'VeLoRA (`velora_config`)', isSet: (config) => isSet(config.velora_config), remedy: RETRAIN },
  { code: 'megatron', title: 'Megatron layers (`megatron_config`)', isSet: (config) => isSet(config.megatron_config), remedy: 'Convert the adapter to the layers of transformers.' },
  { code: 'layer-replication', title: 'replicated layers (`layer_replication`)', isSet: (config) => isFilled(config.layer_replication), remedy: 'Publish the enlarged model as a version of its own and train on that.' },
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
function unsupported(code: Reason['code'], title: string, remedy: string, tensor?: string): Reason {
  return refusal(code, `The adapter uses ${title}, which cannot be merged.`, { remedy, ...(tensor === undefined ? {} : { tensor }) })
}

/** How the base was changed when training began, or null where it was not, in a way that can be made anew. */
export function repeatableInitialisation({ init_lora_weights: value }: LoraConfig): 'pissa' | 'olora' | null {
  const name = lowerCase(value)
  return name === 'pissa' || name === 'olora' ? name : null
}

function initialisationRefusal(value: string | boolean): Reason | null {
  const name = lowerCase(value)
  if (HARMLESS_INITIALISATIONS.has(name) || REPEATABLE_INITIALISATIONS.has(name)) return null
  for (const [pattern, title, why] of UNREPEATABLE_INITIALISATIONS) {
    if (typeof name === 'string' && pattern.test(name)) {
      return refusal('base-changing-initialisation', `The adapter was initialised with ${title} (\`init_lora_weights\`), which changed the base when training began; that change has to be taken out again and cannot be made anew, since ${why}.`, { found: String(value), remedy: CONVERT })
    }
  }
  return refusal('unknown-initialisation', `The adapter was initialised with ${JSON.stringify(value)} (\`init_lora_weights\`), of which is not known whether it changed the base.`, { found: String(value), remedy: CONVERT })
}

/** PEFT does not mind the case. */
function lowerCase(value: string | boolean): string | boolean {
  return typeof value === 'string' ? value.toLowerCase() : value
}

/** Refusals for a module that lacks what the config says that it has, or has what PEFT would then leave out. */
export function missingFeature({ module, kind, a, b, magnitude, bias }: AdapterModule, config: LoraConfig): Reason[] {
  const reasons: Reason[] = []
  const save = 'Save the adapter with PEFT\'s `save_pretrained`.'
  if (config.use_dora !== (magnitude !== null)) {
    reasons.push(refusal('dora', config.use_dora ? `The config says DoRA (\`use_dora\`), but the adapter holds no magnitudes for ${module}.` : `The adapter holds magnitudes for ${module} (DoRA), which PEFT would leave out, since the config does not say \`use_dora\`.`, { tensor: magnitude?.name ?? a.name, remedy: config.use_dora ? save : 'Correct use_dora in adapter_config.json.' }))
  } else if (magnitude !== null && (kind === 'parameter' || kind === 'out-projection')) {
    reasons.push(refusal('dora', `The adapter uses DoRA on ${module}, a ${kind === 'parameter' ? 'bare parameter' : 'torch.nn.MultiheadAttention'}, where PEFT has none.`, { tensor: magnitude.name, remedy: RETRAIN }))
  } else if (magnitude !== null && magnitude.shape.reduce((product, size) => product * size, 1) !== b.shape[0]) {
    reasons.push(refusal('dora', `The adapter's magnitudes of ${module} are not as many as its outputs.`, { tensor: magnitude.name, expected: `${b.shape[0]} values`, found: describeShape(magnitude.shape), remedy: save }))
  }
  if (config.lora_bias !== (bias !== null)) {
    reasons.push(refusal('lora-bias', config.lora_bias ? `The config says \`lora_bias\`, but the adapter holds no bias for ${module}.` : `The adapter holds a bias of B for ${module}, which PEFT would leave out, since the config does not say \`lora_bias\`.`, { tensor: bias?.name ?? a.name, remedy: config.lora_bias ? save : 'Correct lora_bias in adapter_config.json.' }))
  } else if (bias !== null && (bias.shape.length !== 1 || bias.shape[0] !== b.shape[0])) {
    reasons.push(refusal('lora-bias', `The bias of B for ${module} has not one value for each output.`, { tensor: bias.name, expected: `[${b.shape[0]}]`, found: describeShape(bias.shape), remedy: save }))
  }
  return reasons
}

/** Tensors that belong to a variety, by their name: what the file holds counts, whatever the config says. */
const TENSOR_FEATURES: readonly [RegExp, Reason['code'], string, string][] = [
  [/\.lora_magnitude_vector(\.weight)?$/, 'dora', 'DoRA without factors', RETRAIN],
  [/\.lora_B\.bias$/, 'lora-bias', 'a trained LoRA bias without factors', RETRAIN],
  [/\.token_adapter\.|\.trainable_tokens_/, 'trainable-tokens', 'trained token rows of an unknown layer', 'Train without `trainable_token_indices`.'],
  [/\.lora_diag$/, 'kasa', 'KaSA', RETRAIN],
  [/\.lora_monteclora_sampler\b/, 'monteclora', 'MonteCLoRA', RETRAIN],
  [/\.lora_velora_/, 'velora', 'VeLoRA', RETRAIN],
  [/\.modules_to_save\./, 'modules-to-save', 'fully trained modules in the form that PEFT keeps in memory', 'Save the adapter with PEFT\'s `save_pretrained`.'],
]

/** The refusal for an adapter tensor that is nothing that PEFT's LoRA writes. */
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
