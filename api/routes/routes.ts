import type { App } from '../app.ts'
import { registerGetAnalysis } from './analyses/get.ts'
import { registerGetAnalysisPicture } from './analyses/picture.ts'
import { registerRequestAnalysis } from './analyses/request.ts'
import { registerCompleteDatasetUpload } from './datasets/complete-upload.ts'
import { registerDraftDatasetVersion } from './datasets/draft-version.ts'
import { registerGetDatasetUpload } from './datasets/get-upload.ts'
import { registerGetDatasetVersion } from './datasets/get-version.ts'
import { registerGetDataset } from './datasets/get.ts'
import { registerListDatasets } from './datasets/list.ts'
import { registerUpdateDataset } from './datasets/update.ts'
import { registerGetDerivation } from './derivations/get.ts'
import { registerGetDerivationManifest } from './derivations/manifest.ts'
import { registerRequestDerivation } from './derivations/request.ts'
import { registerGetReceipt } from './derivations/receipt.ts'
import { registerSetDerivationStorage } from './derivations/set-storage.ts'
import { registerGetEvaluation } from './evaluations/get.ts'
import { registerListEvaluations } from './evaluations/list.ts'
import { registerRequestEvaluation } from './evaluations/request.ts'
import { registerGetDatasetFile } from './files/get-dataset-file.ts'
import { registerGetDerivationFile } from './files/get-derivation-file.ts'
import { registerGetEvaluationFile } from './files/get-evaluation-file.ts'
import { registerGetModelFile } from './files/get-model-file.ts'
import { registerGetPatchFile } from './files/get-patch-file.ts'
import { registerGetHealth } from './health/get.ts'
import { registerWatchJob } from './jobs/events.ts'
import { registerGetJob } from './jobs/get.ts'
import { registerListJobs } from './jobs/list.ts'
import { registerGetMerged } from './merged/get.ts'
import { registerCompleteModelUpload } from './models/complete-upload.ts'
import { registerDraftModelVersion } from './models/draft-version.ts'
import { registerGetModelLineage } from './models/get-lineage.ts'
import { registerGetModelManifest } from './models/get-manifest.ts'
import { registerGetModelUpload } from './models/get-upload.ts'
import { registerGetModelVersion } from './models/get-version.ts'
import { registerGetModel } from './models/get.ts'
import { registerListModels } from './models/list.ts'
import { registerUpdateModel } from './models/update.ts'
import { registerCreateOrganization } from './organizations/create.ts'
import { registerGetOrganization } from './organizations/get.ts'
import { registerListOrganizations } from './organizations/list.ts'
import { registerCompletePatchUpload } from './patches/complete-upload.ts'
import { registerDeprecatePatchVersion } from './patches/deprecate.ts'
import { registerDraftPatchVersion } from './patches/draft-version.ts'
import { registerGetPatchManifest } from './patches/get-manifest.ts'
import { registerGetPatchReadme } from './patches/get-readme.ts'
import { registerGetPatchUpload } from './patches/get-upload.ts'
import { registerGetPatchVersion } from './patches/get-version.ts'
import { registerGetPatch } from './patches/get.ts'
import { registerListDistTags } from './patches/list-dist-tags.ts'
import { registerListPatches } from './patches/list.ts'
import { registerRemoveDistTag } from './patches/remove-dist-tag.ts'
import { registerSetDistTag } from './patches/set-dist-tag.ts'
import { registerUndeprecatePatchVersion } from './patches/undeprecate.ts'
import { registerUnyankPatchVersion } from './patches/unyank.ts'
import { registerUpdatePatch } from './patches/update.ts'
import { registerYankPatchVersion } from './patches/yank.ts'
import { registerResolvePatches } from './resolve/get.ts'
import { registerClaimJob } from './runner/claim.ts'
import { registerCompleteJob } from './runner/complete.ts'
import { registerFailJob } from './runner/fail.ts'
import { registerGetAttemptFile } from './runner/get-file.ts'
import { registerReportProgress } from './runner/heartbeat.ts'
import { registerRequestOutputs } from './runner/outputs.ts'
import { registerGetDerivationPlan } from './plan/get-derivation-plan.ts'
import { registerGetModelPlan } from './plan/get-model-plan.ts'
import { registerGetPatchPlan } from './plan/get-patch-plan.ts'
import { registerCreateToken } from './tokens/create.ts'
import { registerListTokens } from './tokens/list.ts'
import { registerRevokeToken } from './tokens/revoke.ts'
import { registerRequestEvolution } from './trainings/request-evolution.ts'
import { registerRequestFinetune } from './trainings/request-finetune.ts'
import { registerGetWhoami } from './whoami/get.ts'

/** In the order in which openapi.yaml lists them; a fixed word in a path comes before the parameter at its place. */
const ROUTES: readonly ((app: App) => void)[] = [
  registerGetHealth,
  registerGetWhoami,
  registerListOrganizations,
  registerCreateOrganization,
  registerGetOrganization,
  registerListTokens,
  registerCreateToken,
  registerRevokeToken,
  registerListModels,
  registerGetModel,
  registerUpdateModel,
  registerGetModelVersion,
  registerDraftModelVersion,
  registerGetModelUpload,
  registerCompleteModelUpload,
  registerGetModelManifest,
  registerGetModelLineage,
  registerGetModelFile,
  registerGetModelPlan,
  registerListDatasets,
  registerGetDataset,
  registerUpdateDataset,
  registerGetDatasetVersion,
  registerDraftDatasetVersion,
  registerGetDatasetUpload,
  registerCompleteDatasetUpload,
  registerGetDatasetFile,
  registerListPatches,
  registerGetPatch,
  registerUpdatePatch,
  registerGetPatchReadme,
  registerListDistTags,
  registerSetDistTag,
  registerRemoveDistTag,
  registerGetPatchVersion,
  registerDraftPatchVersion,
  registerGetPatchUpload,
  registerCompletePatchUpload,
  registerGetPatchManifest,
  registerYankPatchVersion,
  registerUnyankPatchVersion,
  registerDeprecatePatchVersion,
  registerUndeprecatePatchVersion,
  registerResolvePatches,
  registerGetMerged,
  registerRequestDerivation,
  registerGetDerivation,
  registerGetDerivationManifest,
  registerGetReceipt,
  registerSetDerivationStorage,
  registerRequestAnalysis,
  registerGetAnalysis,
  registerGetAnalysisPicture,
  registerListEvaluations,
  registerRequestEvaluation,
  registerGetEvaluation,
  registerGetEvaluationFile,
  registerRequestFinetune,
  registerRequestEvolution,
  registerListJobs,
  registerGetJob,
  registerWatchJob,
  registerClaimJob,
  registerReportProgress,
  registerRequestOutputs,
  registerGetAttemptFile,
  registerCompleteJob,
  registerFailJob,
  registerGetPatchFile,
  registerGetPatchPlan,
  registerGetDerivationFile,
  registerGetDerivationPlan,
]

/** Every operation of the API, one line each. */
export function registerRoutes(app: App): void {
  for (const register of ROUTES) register(app)
}
