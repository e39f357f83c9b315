import createClient from 'openapi-fetch'
import type { components, paths } from '../build/openapi.d.ts'
import type { DerivationOptions } from '../patch/derivation.ts'
import type { MergeStorage } from '../patch/merge-storage.ts'
import type { ModelManifest, PatchManifest } from '../patch/manifest.ts'
import type { Receipt } from '../patch/receipt.ts'
import type { Connection } from './config.ts'
import { apiError, registryFetch, unwrap } from './http.ts'
import { USER_AGENT } from './version.ts'

type Schemas = components['schemas']
export type EvaluationSummary = Schemas['EvaluationSummary']
export type Job = NonNullable<Schemas['Job']>
export type Merged = Schemas['Merged']
export type Model = Schemas['Model']
export type ModelVersion = Schemas['ModelVersion']
export type PatchPackage = Schemas['Patch']
export type PatchVersion = Schemas['PatchVersion']
export type PatchVersionSummary = Schemas['PatchVersionSummary']
export type Plan = Schemas['Plan']
export type PlanFile = Plan['files'][number]
export type PlanExtent = PlanFile['extents'][number]
export type Resolution = Schemas['Resolution']
export type NewModelVersion = Schemas['NewModelVersion']
export type NewPatchVersion = Schemas['NewPatchVersion']
export type NewDatasetVersion = Schemas['NewDatasetVersion']
export type Dataset = Schemas['Dataset']
export type DatasetVersion = Schemas['DatasetVersion']
export type TokenScope = Schemas['NewToken']['scopes'][number]
export type Upload = Schemas['Upload']
export type UploadPart = Upload['files'][number]['parts'][number]
export type Whoami = Schemas['Whoami']

export type VersionKind = 'models' | 'patches' | 'datasets'
export interface VersionName { organization: string; name: string; version: string }
/** A merge is there, or its job is. */
/** What a merge may be asked for beside its inputs. */
export interface MergeWishes extends DerivationOptions { readonly storage?: MergeStorage | undefined }

export type MergeAnswer = { merged: Merged } | { job: Job; derivation: string }
export type Registry = ReturnType<typeof createRegistry>

type Query<P extends keyof paths> = paths[P] extends { get: { parameters: { query?: infer Q } } } ? NonNullable<Q> : never
export type JobQuery = Query<'/v1/jobs'>

/** Short merges and analyses are answered without a round of waiting for their job. */
const PREFER = { Prefer: 'wait=2' }

/** Every call that the command line makes to the API, with types from openapi.yaml. Each rejects with CliError. */
export function createRegistry(connection: Connection, signal: AbortSignal) {
  const headers = { 'user-agent': USER_AGENT, ...(connection.token !== null && { authorization: `Bearer ${connection.token}` }) }
  const api = createClient<paths>({ baseUrl: connection.registry, headers, fetch: registryFetch(signal) })
  const call = <T>(answer: Promise<{ data?: T; error?: unknown; response: Response }>) => unwrap(answer, connection)
  const family = (org: string, name: string) => ({ params: { path: { org, name } } })
  const of = ({ organization: org, name, version }: VersionName) => ({ params: { path: { org, name, version } } })

  return {
    connection,
    signal,
    whoami: () => call(api.GET('/v1/whoami')),
    createOrganization: (body: Schemas['NewOrganization']) => call(api.POST('/v1/organizations', { body })),
    listOrganizations: (query: Query<'/v1/organizations'>) => call(api.GET('/v1/organizations', { params: { query } })),
    createToken: (body: Schemas['NewToken']) => call(api.POST('/v1/tokens', { body })),
    listTokens: (query: Query<'/v1/tokens'>) => call(api.GET('/v1/tokens', { params: { query } })),
    revokeToken: (id: string) => call(api.DELETE('/v1/tokens/{id}', { params: { path: { id } } })),

    listModels: (query: Query<'/v1/models'>) => call(api.GET('/v1/models', { params: { query } })),
    getModel: (org: string, name: string) => call(api.GET('/v1/models/{org}/{name}', family(org, name))),
    getModelVersion: (version: VersionName) => call(api.GET('/v1/models/{org}/{name}/{version}', of(version))),
    getModelManifest: async (version: VersionName) => (await call(api.GET('/v1/models/{org}/{name}/{version}/manifest', of(version)))) as ModelManifest,
    getModelPlan: (version: VersionName) => call(api.GET('/v1/models/{org}/{name}/{version}/plan', of(version))),
    listPatches: (query: Query<'/v1/patches'>) => call(api.GET('/v1/patches', { params: { query } })),
    getPatch: (org: string, name: string) => call(api.GET('/v1/patches/{org}/{name}', family(org, name))),
    getPatchVersion: (version: VersionName) => call(api.GET('/v1/patches/{org}/{name}/{version}', of(version))),
    getPatchManifest: async (version: VersionName) => (await call(api.GET('/v1/patches/{org}/{name}/{version}/manifest', of(version)))) as PatchManifest,
    getPatchPlan: (version: VersionName) => call(api.GET('/v1/patches/{org}/{name}/{version}/plan', of(version))),

    listDatasets: (query: Query<'/v1/datasets'>) => call(api.GET('/v1/datasets', { params: { query } })),
    getDataset: (org: string, name: string) => call(api.GET('/v1/datasets/{org}/{name}', family(org, name))),
    getDatasetVersion: (version: VersionName) => call(api.GET('/v1/datasets/{org}/{name}/{version}', of(version))),

    draftModelVersion: (version: VersionName, body: Schemas['NewModelVersion']) => call(api.PUT('/v1/models/{org}/{name}/{version}', { ...of(version), body })),
    draftPatchVersion: (version: VersionName, body: Schemas['NewPatchVersion']) => call(api.PUT('/v1/patches/{org}/{name}/{version}', { ...of(version), body })),
    draftDatasetVersion: (version: VersionName, body: Schemas['NewDatasetVersion']) => call(api.PUT('/v1/datasets/{org}/{name}/{version}', { ...of(version), body })),
    getUpload: (kind: VersionKind, version: VersionName) => call(api.GET(`/v1/${kind}/{org}/{name}/{version}/upload`, of(version))),
    completeUpload: (kind: VersionKind, version: VersionName, digest: string) => call(api.POST(`/v1/${kind}/{org}/{name}/{version}/complete`, { ...of(version), body: { digest } })),

    yank: (version: VersionName, reason: string) => call(api.PUT('/v1/patches/{org}/{name}/{version}/yank', { ...of(version), body: { reason } })),
    unyank: (version: VersionName) => call(api.DELETE('/v1/patches/{org}/{name}/{version}/yank', of(version))),
    deprecate: (version: VersionName, message: string) => call(api.PUT('/v1/patches/{org}/{name}/{version}/deprecation', { ...of(version), body: { message } })),
    undeprecate: (version: VersionName) => call(api.DELETE('/v1/patches/{org}/{name}/{version}/deprecation', of(version))),
    setDistTag: (org: string, name: string, tag: string, version: string) => call(api.PUT('/v1/patches/{org}/{name}/dist-tags/{tag}', { params: { path: { org, name, tag } }, body: { version } })),
    removeDistTag: (org: string, name: string, tag: string) => call(api.DELETE('/v1/patches/{org}/{name}/dist-tags/{tag}', { params: { path: { org, name, tag } } })),

    resolve: (target: string, patch: string[], options: DerivationOptions) => call(api.GET('/v1/resolve', { params: { query: { target, patch, ...options } } })),
    requestMerged: ({ organization: org, name, version }: VersionName, patch: string[], wishes: MergeWishes): Promise<MergeAnswer> =>
      call(api.GET('/v1/models/{org}/{name}/{version}/merged', { params: { path: { org, name, version }, query: { patch, ...wishes } }, headers: PREFER })).then(toMergeAnswer),
    requestDerivation: (body: Schemas['DerivationRequest']): Promise<MergeAnswer> => call(api.POST('/v1/derivations', { body, headers: PREFER })).then(toMergeAnswer),
    setDerivationStorage: (id: string, storage: MergeStorage): Promise<MergeAnswer> => call(api.PUT('/v1/derivations/{id}/storage', { params: { path: { id } }, body: { storage }, headers: PREFER })).then(toMergeAnswer),
    getDerivation: (id: string) => call(api.GET('/v1/derivations/{id}', { params: { path: { id } } })),
    getDerivationManifest: async (id: string) => (await call(api.GET('/v1/derivations/{id}/manifest', { params: { path: { id } } }))) as ModelManifest,
    getReceipt: async (id: string) => (await call(api.GET('/v1/derivations/{id}/receipt', { params: { path: { id } } }))) as Receipt,
    getDerivationPlan: (id: string) => call(api.GET('/v1/derivations/{id}/plan', { params: { path: { id } } })),

    requestAnalysis: (body: Schemas['AnalysisRequest']) => call(api.POST('/v1/analyses', { body, headers: PREFER })),
    getAnalysis: (id: string) => call(api.GET('/v1/analyses/{id}', { params: { path: { id } } })),

    requestEvaluation: (body: Schemas['EvaluationRequest']) => call(api.POST('/v1/evaluations', { body, headers: PREFER })),
    getEvaluation: (id: string) => call(api.GET('/v1/evaluations/{id}', { params: { path: { id } } })),
    listEvaluations: (query: Query<'/v1/evaluations'>) => call(api.GET('/v1/evaluations', { params: { query } })),
    requestFinetune: (body: Schemas['FinetuneRequest']) => call(api.POST('/v1/finetunes', { body })),
    requestEvolution: (body: Schemas['EvolutionRequest']) => call(api.POST('/v1/evolutions', { body })),

    listJobs: (query: Query<'/v1/jobs'>) => call(api.GET('/v1/jobs', { params: { query } })),
    getJob: (id: string) => call(api.GET('/v1/jobs/{id}', { params: { path: { id } } })) as Promise<Job>,
    /** The stream of `job` events; the caller reads it. */
    jobEvents: async (id: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> => {
      const { data, error, response } = await api.GET('/v1/jobs/{id}/events', { params: { path: { id } }, parseAs: 'stream' })
      if (!response.ok || !data) throw apiError(error, response.status, connection)
      return data as ReadableStream<Uint8Array<ArrayBuffer>>
    },
  }
}

function toMergeAnswer(answer: Merged | Schemas['PendingMerge']): MergeAnswer {
  return 'derivation' in answer ? { job: answer.job as Job, derivation: answer.derivation } : { merged: answer }
}
