export type SafetensorsErrorCode =
  | 'truncated' | 'header-too-large' | 'not-json' | 'bad-utf8' | 'duplicate-key' | 'bad-structure' | 'bad-metadata'
  | 'too-many-tensors' | 'bad-name' | 'unknown-dtype' | 'bad-shape' | 'shape-overflow' | 'bad-offsets' | 'size-mismatch' | 'overlap' | 'hole' | 'trailing-bytes' | 'read-differently'

/** A file that is not a safetensors file, or not a sound one: what is wrong and at which tensor. */
export class SafetensorsError extends Error {
  readonly code: SafetensorsErrorCode
  readonly tensor: string | undefined
  constructor(code: SafetensorsErrorCode, message: string, tensor?: string) {
    super(tensor === undefined ? message : `tensor ${JSON.stringify(tensor.slice(0, 200))}: ${message}`)
    this.name = 'SafetensorsError'
    this.code = code
    this.tensor = tensor
  }
}
