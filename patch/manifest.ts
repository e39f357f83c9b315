import type { Dtype } from './dtype.ts'

/** One tensor of a published model or patch, located in one of its files. */
export interface ManifestTensor {
  readonly name: string
  readonly dtype: Dtype
  readonly shape: readonly number[]
  /** Path of the safetensors file that holds it, relative to the version's root. */
  readonly file: string
  /** First byte, counted from the start of the file (header included). */
  readonly offset: number
  /** Length in bytes. */
  readonly length: number
  /** `sha256:<64 hex>` of the tensor's bytes. */
  readonly digest: string
}

/** One file of a version. */
export interface ManifestFile {
  readonly path: string
  /** Size in bytes. */
  readonly size: number
  /**
   * Identity of the bytes, 64 hex digits: SHA-256 of the content for an uploaded file,
   * SHA-256 of the derivation id and path for a virtual file (design.md, "Storage").
   */
  readonly etag: string
}

/** What compatibility needs to know of a model beyond its tensors, read from its JSON files at ingest. */
export interface ModelFacts {
  /** `model_type` of config.json, such as `llama`. */
  readonly modelType: string | null
  /** `architectures` of config.json. */
  readonly architectures: readonly string[]
  readonly tieWordEmbeddings: boolean
  /** `quantization_config.quant_method`, or null for a model that is not quantized. */
  readonly quantization: string | null
  readonly layerCount: number | null
  readonly vocabularySize: number | null
  /** `sha256:…` over the tokenizer's files, or null where the version has none. */
  readonly tokenizerDigest: string | null
  /** `sha256:…` of the chat template, or null where there is none. */
  readonly chatTemplateDigest: string | null
}

/** The immutable description of a model version. */
export interface ModelManifest {
  readonly format: 'portllm.model/1'
  readonly files: readonly ManifestFile[]
  readonly tensors: readonly ManifestTensor[]
  readonly facts: ModelFacts
}

/** The immutable description of a dataset version (dataset-files.ts). */
export interface DatasetManifest {
  readonly format: 'portllm.dataset/1'
  readonly files: readonly ManifestFile[]
}

/** The immutable description of a patch version: a PEFT adapter, as PEFT wrote it. */
export interface PatchManifest {
  readonly format: 'portllm.patch/1'
  readonly files: readonly ManifestFile[]
  readonly tensors: readonly ManifestTensor[]
  /** Text of adapter_config.json, byte for byte: `rank_pattern` and `alpha_pattern` depend on its key order. */
  readonly adapterConfig: string
}

export type VersionManifest = ModelManifest | PatchManifest | DatasetManifest
