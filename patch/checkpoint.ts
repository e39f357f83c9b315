import type { ManifestTensor, ModelManifest } from './manifest.ts'
import { tensorNames } from './tensor-names.ts'
import type { TensorMatch } from './tensor-names.ts'

/** The tensors of a model version by the names that an adapter knows them by. */
export interface Checkpoint {
  readonly manifest: ModelManifest
  readonly modelType: string | null
  /** The one tensor that the name means, or null where there is none or more than one. */
  readonly find: (name: string) => ManifestTensor | null
  readonly match: (name: string) => TensorMatch
}

export function openCheckpoint(manifest: ModelManifest): Checkpoint {
  const byName = new Map(manifest.tensors.map((tensor) => [tensor.name, tensor]))
  const { modelType } = manifest.facts
  const names = tensorNames(manifest.tensors, modelType)
  return {
    manifest, modelType,
    match: names.find,
    find(name) {
      const found = names.find(name).names
      return found.length === 1 ? (byName.get(found[0]!) ?? null) : null
    },
  }
}
