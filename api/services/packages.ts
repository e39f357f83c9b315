import { datasets, datasetVersions, models, modelVersions, patches, patchVersions } from '../../db/schema.ts'

export type PackageKind = 'model' | 'patch' | 'dataset'

/** Of each kind of package its versions, its families, and the column that ties the one to the other. */
export const PACKAGES = {
  model: { versions: modelVersions, families: models, familyId: modelVersions.modelId },
  patch: { versions: patchVersions, families: patches, familyId: patchVersions.patchId },
  dataset: { versions: datasetVersions, families: datasets, familyId: datasetVersions.datasetId },
} as const
