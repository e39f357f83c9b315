import { sql } from 'drizzle-orm'
import {
  bigint, bigserial, boolean, check, doublePrecision, foreignKey, index, integer, jsonb, pgEnum, pgTable, primaryKey, text, timestamp, uniqueIndex, uuid,
} from 'drizzle-orm/pg-core'
import type { Analysis } from '../patch/analysis.ts'
import type { Derivation } from '../patch/derivation.ts'
import type { EvaluationResult, EvaluationSpec } from '../patch/evaluation.ts'
import type { DatasetManifest, ModelManifest, PatchManifest } from '../patch/manifest.ts'
import type { TensorReceipt } from '../patch/receipt.ts'
import type { EvolveSpec, FinetuneSpec, TrainingRecord } from '../patch/training.ts'

function createdAt() {
  return timestamp('created_at', { withTimezone: true }).notNull().defaultNow()
}

export const role = pgEnum('role', ['reader', 'publisher', 'admin'])
export const visibility = pgEnum('visibility', ['public', 'internal'])
export const publishState = pgEnum('publish_state', ['draft', 'uploaded', 'verifying', 'published', 'rejected'])
export const jobKind = pgEnum('job_kind', ['ingest', 'merge', 'analyze', 'evaluate', 'finetune', 'evolve'])
export const jobState = pgEnum('job_state', ['queued', 'running', 'succeeded', 'failed', 'cancelled'])
export const derivationState = pgEnum('derivation_state', ['queued', 'ready', 'failed'])
export const derivationStorage = pgEnum('derivation_storage', ['computed', 'materialised'])

export const organizations = pgTable('organizations', {
  id: uuid('id').primaryKey().defaultRandom(),
  name: text('name').notNull(),
  displayName: text('display_name'),
  createdAt: createdAt(),
}, (t) => [uniqueIndex('organizations_name').on(sql`lower(${t.name})`)])

export const users = pgTable('users', {
  id: uuid('id').primaryKey().defaultRandom(),
  name: text('name').notNull(),
  /** Registry administrator: may create organizations and tokens for anybody. */
  isAdmin: boolean('is_admin').notNull().default(false),
  createdAt: createdAt(),
}, (t) => [uniqueIndex('users_name').on(sql`lower(${t.name})`)])

export const members = pgTable('members', {
  organizationId: uuid('organization_id').notNull().references(() => organizations.id),
  userId: uuid('user_id').notNull().references(() => users.id),
  role: role('role').notNull(),
  createdAt: createdAt(),
}, (t) => [primaryKey({ columns: [t.organizationId, t.userId] })])

/** API tokens. The token itself is shown once and never stored: only its SHA-256. */
export const tokens = pgTable('tokens', {
  id: uuid('id').primaryKey().defaultRandom(),
  userId: uuid('user_id').notNull().references(() => users.id),
  name: text('name').notNull(),
  sha256: text('sha256').notNull(),
  /** `read`, `publish`, `admin`, `runner`. */
  scopes: text('scopes').array().notNull(),
  /** Limits the token to one organization; null for every organization of its user. */
  organizationId: uuid('organization_id').references(() => organizations.id),
  expiresAt: timestamp('expires_at', { withTimezone: true }),
  lastUsedAt: timestamp('last_used_at', { withTimezone: true }),
  revokedAt: timestamp('revoked_at', { withTimezone: true }),
  createdAt: createdAt(),
}, (t) => [uniqueIndex('tokens_sha256').on(t.sha256)])

export const models = pgTable('models', {
  id: uuid('id').primaryKey().defaultRandom(),
  organizationId: uuid('organization_id').notNull().references(() => organizations.id),
  name: text('name').notNull(),
  description: text('description').notNull().default(''),
  visibility: visibility('visibility').notNull().default('public'),
  createdAt: createdAt(),
}, (t) => [uniqueIndex('models_name').on(t.organizationId, sql`lower(${t.name})`)])

export const modelVersions = pgTable('model_versions', {
  id: uuid('id').primaryKey().defaultRandom(),
  modelId: uuid('model_id').notNull().references(() => models.id),
  version: text('version').notNull(),
  state: publishState('state').notNull().default('draft'),
  origin: text('origin', { enum: ['uploaded', 'derived'] }).notNull().default('uploaded'),
  /** `sha256:…` over the files; null until published. */
  digest: text('digest'),
  manifest: jsonb('manifest').$type<ModelManifest>(),
  parentId: uuid('parent_id'),
  /** How it descends from its parent, such as `continued-pretraining`. */
  parentKind: text('parent_kind'),
  /** Why ingest refused it. */
  rejection: jsonb('rejection').$type<{ code: string; message: string; file?: string; tensor?: string }[]>(),
  createdBy: uuid('created_by').notNull().references(() => users.id),
  createdAt: createdAt(),
  publishedAt: timestamp('published_at', { withTimezone: true }),
}, (t) => [
  uniqueIndex('model_versions_version').on(t.modelId, sql`lower(${t.version})`),
  index('model_versions_digest').on(t.digest),
  index('model_versions_parent').on(t.parentId),
  foreignKey({ columns: [t.parentId], foreignColumns: [t.id], name: 'model_versions_parent_fk' }),
])

export const patches = pgTable('patches', {
  id: uuid('id').primaryKey().defaultRandom(),
  organizationId: uuid('organization_id').notNull().references(() => organizations.id),
  name: text('name').notNull(),
  description: text('description').notNull().default(''),
  visibility: visibility('visibility').notNull().default('public'),
  /** Markdown of the newest published version's README.md. */
  readme: text('readme'),
  createdAt: createdAt(),
}, (t) => [uniqueIndex('patches_name').on(t.organizationId, sql`lower(${t.name})`)])

export const patchVersions = pgTable('patch_versions', {
  id: uuid('id').primaryKey().defaultRandom(),
  patchId: uuid('patch_id').notNull().references(() => patches.id),
  /** Semver. */
  version: text('version').notNull(),
  state: publishState('state').notNull().default('draft'),
  digest: text('digest'),
  manifest: jsonb('manifest').$type<PatchManifest>(),
  baseVersionId: uuid('base_version_id').notNull().references(() => modelVersions.id),
  /** Model versions that the publisher declares as targets: a semver range, or null for any. */
  targetRange: text('target_range'),
  /** The dist-tag that publishing moves here; null for npm's rule about `latest`. */
  publishTag: text('publish_tag'),
  rejection: jsonb('rejection').$type<{ code: string; message: string; file?: string; tensor?: string }[]>(),
  createdBy: uuid('created_by').notNull().references(() => users.id),
  createdAt: createdAt(),
  publishedAt: timestamp('published_at', { withTimezone: true }),
}, (t) => [
  uniqueIndex('patch_versions_version').on(t.patchId, sql`lower(${t.version})`),
  index('patch_versions_digest').on(t.digest),
  index('patch_versions_base').on(t.baseVersionId),
])

/** What may change about an immutable patch version: yank and deprecation. */
export const patchMarks = pgTable('patch_marks', {
  patchVersionId: uuid('patch_version_id').primaryKey().references(() => patchVersions.id),
  yankedAt: timestamp('yanked_at', { withTimezone: true }),
  yankReason: text('yank_reason'),
  deprecation: text('deprecation'),
})

export const distTags = pgTable('dist_tags', {
  patchId: uuid('patch_id').notNull().references(() => patches.id),
  tag: text('tag').notNull(),
  patchVersionId: uuid('patch_version_id').notNull().references(() => patchVersions.id),
}, (t) => [primaryKey({ columns: [t.patchId, t.tag] })])

export const datasets = pgTable('datasets', {
  id: uuid('id').primaryKey().defaultRandom(),
  organizationId: uuid('organization_id').notNull().references(() => organizations.id),
  name: text('name').notNull(),
  description: text('description').notNull().default(''),
  visibility: visibility('visibility').notNull().default('public'),
  createdAt: createdAt(),
}, (t) => [uniqueIndex('datasets_name').on(t.organizationId, sql`lower(${t.name})`)])

/** What a fine-tuning or an evolution reads: files of rows, for each split one. */
export const datasetVersions = pgTable('dataset_versions', {
  id: uuid('id').primaryKey().defaultRandom(),
  datasetId: uuid('dataset_id').notNull().references(() => datasets.id),
  version: text('version').notNull(),
  state: publishState('state').notNull().default('draft'),
  digest: text('digest'),
  manifest: jsonb('manifest').$type<DatasetManifest>(),
  rejection: jsonb('rejection').$type<{ code: string; message: string; file?: string; tensor?: string }[]>(),
  createdBy: uuid('created_by').notNull().references(() => users.id),
  createdAt: createdAt(),
  publishedAt: timestamp('published_at', { withTimezone: true }),
}, (t) => [uniqueIndex('dataset_versions_version').on(t.datasetId, sql`lower(${t.version})`)])

/** Immutable, content-addressed bytes in the blob store. */
export const blobs = pgTable('blobs', {
  sha256: text('sha256').primaryKey(),
  size: bigint('size', { mode: 'number' }).notNull(),
  createdAt: createdAt(),
  /** When something that referred to it last ceased to, whatever refers to it now. */
  releasedAt: timestamp('released_at', { withTimezone: true }),
})

/** What a draft's client says it will upload; the bytes are staged until ingest has verified them. */
export const uploadFiles = pgTable('upload_files', {
  id: uuid('id').primaryKey().defaultRandom(),
  modelVersionId: uuid('model_version_id').references(() => modelVersions.id, { onDelete: 'cascade' }),
  patchVersionId: uuid('patch_version_id').references(() => patchVersions.id, { onDelete: 'cascade' }),
  datasetVersionId: uuid('dataset_version_id').references(() => datasetVersions.id, { onDelete: 'cascade' }),
  path: text('path').notNull(),
  size: bigint('size', { mode: 'number' }).notNull(),
  sha256: text('sha256').notNull(),
  /** The same organization already holds a blob of this digest: nothing is uploaded. */
  held: boolean('held').notNull().default(false),
}, (t) => [
  index('upload_files_model_version').on(t.modelVersionId),
  index('upload_files_patch_version').on(t.patchVersionId),
  index('upload_files_dataset_version').on(t.datasetVersionId),
  index('upload_files_held').on(t.sha256).where(sql`${t.held}`),
  check('upload_files_owner', sql`num_nonnulls(${t.modelVersionId}, ${t.patchVersionId}, ${t.datasetVersionId}) = 1`),
])

export const derivations = pgTable('derivations', {
  /** SHA-256 of the canonical recipe, 64 hex. */
  id: text('id').primaryKey(),
  recipe: jsonb('recipe').$type<Derivation>().notNull(),
  targetVersionId: uuid('target_version_id').notNull().references(() => modelVersions.id),
  state: derivationState('state').notNull().default('queued'),
  jobId: uuid('job_id'),
  manifest: jsonb('manifest').$type<ModelManifest>(),
  /** Receipt figures by tensor: output digest, patch norm, realised delta. */
  receipt: jsonb('receipt').$type<DerivationReceipt>(),
  /** Whether the changed tensors are kept, or computed when they are asked for (docs/decisions/0004). */
  storage: derivationStorage('storage').notNull().default('materialised'),
  /** Why, as a sentence. */
  storageReason: text('storage_reason').notNull().default('It was merged before there was a choice.'),
  createdAt: createdAt(),
  readyAt: timestamp('ready_at', { withTimezone: true }),
}, (t) => [index('derivations_target').on(t.targetVersionId)])

export interface DerivationReceipt {
  engine: { name: string; version: string; path: string }
  tensors: TensorReceipt[]
  /** Seconds from claim to completion. */
  seconds: number
}

export const derivationPatches = pgTable('derivation_patches', {
  derivationId: text('derivation_id').notNull().references(() => derivations.id),
  position: integer('position').notNull(),
  patchVersionId: uuid('patch_version_id').notNull().references(() => patchVersions.id),
  weight: doublePrecision('weight').notNull(),
}, (t) => [primaryKey({ columns: [t.derivationId, t.position] }), index('derivation_patches_patch').on(t.patchVersionId)])

/** The tensors that a merge changes, in the order of its plan. */
export const changedTensors = pgTable('changed_tensors', {
  id: uuid('id').primaryKey().defaultRandom(),
  derivationId: text('derivation_id').notNull().references(() => derivations.id),
  position: integer('position').notNull(),
  name: text('name').notNull(),
  /** `sha256:…` as the runner that merged it first claimed; only bytes that were hashed here make a blob. */
  digest: text('digest').notNull(),
  length: bigint('length', { mode: 'number' }).notNull(),
  /** Its bytes where they are kept; null where they are computed when asked for. */
  blob: text('blob').references(() => blobs.sha256),
}, (t) => [uniqueIndex('changed_tensors_position').on(t.derivationId, t.position), index('changed_tensors_blob').on(t.blob)])

/** What a patch meets on a target, measured from the weights of patch, base and target alone: once for each pair. */
export const analyses = pgTable('analyses', {
  id: uuid('id').primaryKey().defaultRandom(),
  patchVersionId: uuid('patch_version_id').notNull().references(() => patchVersions.id),
  targetVersionId: uuid('target_version_id').notNull().references(() => modelVersions.id),
  state: derivationState('state').notNull().default('queued'),
  jobId: uuid('job_id'),
  /** Null until it is ready. */
  result: jsonb('result').$type<Analysis>(),
  createdBy: uuid('created_by').notNull().references(() => users.id),
  createdAt: createdAt(),
  readyAt: timestamp('ready_at', { withTimezone: true }),
}, (t) => [uniqueIndex('analyses_pair').on(t.patchVersionId, t.targetVersionId), index('analyses_target').on(t.targetVersionId)])

/** Scores of a model on tasks, with or without a patch: one row for one question, however many ask it. */
export const evaluations = pgTable('evaluations', {
  id: uuid('id').primaryKey().defaultRandom(),
  /** SHA-256 of what is evaluated and how (evaluationIdentity), by the ids of the versions. */
  identity: text('identity').notNull(),
  targetVersionId: uuid('target_version_id').notNull().references(() => modelVersions.id),
  patchVersionId: uuid('patch_version_id').references(() => patchVersions.id),
  /** The merged model, where the patch is merged. */
  derivationId: text('derivation_id').references(() => derivations.id),
  spec: jsonb('spec').$type<EvaluationSpec>().notNull(),
  /** Whose the data is, where it is an organization's own: the figures are then for its members. */
  dataOrganizationId: uuid('data_organization_id').references(() => organizations.id),
  state: derivationState('state').notNull().default('queued'),
  jobId: uuid('job_id'),
  /** Null until it is ready. */
  result: jsonb('result').$type<EvaluationResult>(),
  createdBy: uuid('created_by').notNull().references(() => users.id),
  createdAt: createdAt(),
  readyAt: timestamp('ready_at', { withTimezone: true }),
}, (t) => [
  uniqueIndex('evaluations_identity').on(t.identity),
  index('evaluations_target').on(t.targetVersionId),
  index('evaluations_patch').on(t.patchVersionId),
  index('evaluations_derivation').on(t.derivationId),
])

/** How a version is made by a job of the registry: a patch by fine-tuning its base, a model version by training its parent further. */
export const trainings = pgTable('trainings', {
  id: uuid('id').primaryKey().defaultRandom(),
  modelVersionId: uuid('model_version_id').references(() => modelVersions.id),
  patchVersionId: uuid('patch_version_id').references(() => patchVersions.id),
  spec: jsonb('spec').$type<FinetuneSpec | EvolveSpec>().notNull(),
  /** What it learns from, where that is a dataset of the registry. */
  datasetVersionId: uuid('dataset_version_id').references(() => datasetVersions.id),
  jobId: uuid('job_id').notNull(),
  /** Null until it is trained. */
  record: jsonb('record').$type<TrainingRecord>(),
  createdAt: createdAt(),
}, (t) => [
  uniqueIndex('trainings_model_version').on(t.modelVersionId),
  uniqueIndex('trainings_patch_version').on(t.patchVersionId),
  check('trainings_owner', sql`num_nonnulls(${t.modelVersionId}, ${t.patchVersionId}) = 1`),
])

/** A file that can be fetched: of a model, patch or dataset version, a merged model, or what an evaluation recorded of each question. */
export const files = pgTable('files', {
  id: uuid('id').primaryKey().defaultRandom(),
  modelVersionId: uuid('model_version_id').references(() => modelVersions.id),
  patchVersionId: uuid('patch_version_id').references(() => patchVersions.id),
  datasetVersionId: uuid('dataset_version_id').references(() => datasetVersions.id),
  derivationId: text('derivation_id').references(() => derivations.id),
  evaluationId: uuid('evaluation_id').references(() => evaluations.id),
  path: text('path').notNull(),
  size: bigint('size', { mode: 'number' }).notNull(),
  etag: text('etag').notNull(),
}, (t) => [
  uniqueIndex('files_model_version').on(t.modelVersionId, t.path),
  uniqueIndex('files_patch_version').on(t.patchVersionId, t.path),
  uniqueIndex('files_dataset_version').on(t.datasetVersionId, t.path),
  uniqueIndex('files_derivation').on(t.derivationId, t.path),
  uniqueIndex('files_evaluation').on(t.evaluationId, t.path),
  check('files_owner', sql`num_nonnulls(${t.modelVersionId}, ${t.patchVersionId}, ${t.datasetVersionId}, ${t.derivationId}, ${t.evaluationId}) = 1`),
])

/** The extents of a file, in order: it is a virtual file when there is more than one. Each is of a blob or of a changed tensor. */
export const extents = pgTable('extents', {
  fileId: uuid('file_id').notNull().references(() => files.id, { onDelete: 'cascade' }),
  position: integer('position').notNull(),
  blob: text('blob').references(() => blobs.sha256),
  changedTensorId: uuid('changed_tensor_id').references(() => changedTensors.id),
  offset: bigint('offset', { mode: 'number' }).notNull(),
  length: bigint('length', { mode: 'number' }).notNull(),
}, (t) => [
  primaryKey({ columns: [t.fileId, t.position] }),
  index('extents_blob').on(t.blob),
  check('extents_source', sql`num_nonnulls(${t.blob}, ${t.changedTensorId}) = 1`),
])

export const PROGRESS_UNITS = ['bytes', 'tensors', 'files', 'steps', 'examples', 'packages'] as const
export interface JobProgress { phase: string; done: number; total: number; unit: (typeof PROGRESS_UNITS)[number] }
export interface JobFailure { code: string; message: string; retryable: boolean }

/** The public face of a job; the queue itself is pg-boss's, in the same database. */
export const jobs = pgTable('jobs', {
  id: uuid('id').primaryKey().defaultRandom(),
  kind: jobKind('kind').notNull(),
  state: jobState('state').notNull().default('queued'),
  organizationId: uuid('organization_id').notNull().references(() => organizations.id),
  modelVersionId: uuid('model_version_id').references(() => modelVersions.id),
  patchVersionId: uuid('patch_version_id').references(() => patchVersions.id),
  datasetVersionId: uuid('dataset_version_id').references(() => datasetVersions.id),
  derivationId: text('derivation_id').references(() => derivations.id),
  analysisId: uuid('analysis_id').references(() => analyses.id),
  evaluationId: uuid('evaluation_id').references(() => evaluations.id),
  /** The id of its pg-boss job; null while the job waits for another one to end. */
  queueId: uuid('queue_id'),
  attempt: integer('attempt').notNull().default(0),
  progress: jsonb('progress').$type<JobProgress>(),
  failure: jsonb('failure').$type<JobFailure>(),
  requestedBy: uuid('requested_by').references(() => users.id),
  createdAt: createdAt(),
  startedAt: timestamp('started_at', { withTimezone: true }),
  endedAt: timestamp('ended_at', { withTimezone: true }),
}, (t) => [index('jobs_organization').on(t.organizationId, t.createdAt), index('jobs_derivation').on(t.derivationId), index('jobs_analysis').on(t.analysisId), index('jobs_evaluation').on(t.evaluationId)])

/** One row for every change of state, written in the same transaction. */
export const audit = pgTable('audit', {
  id: bigserial('id', { mode: 'number' }).primaryKey(),
  at: timestamp('at', { withTimezone: true }).notNull().defaultNow(),
  requestId: text('request_id').notNull(),
  /** Null for the registry itself (bootstrap, runner completions). */
  userId: uuid('user_id'),
  tokenId: uuid('token_id'),
  organizationId: uuid('organization_id'),
  /** `<entity>.<verb>`, such as `patch-version.yank`. */
  action: text('action').notNull(),
  subject: text('subject').notNull(),
  before: jsonb('before'),
  after: jsonb('after'),
}, (t) => [index('audit_organization').on(t.organizationId, t.id)])

/** Single-row settings of this registry: signing keys, made at first start. */
export const settings = pgTable('settings', {
  key: text('key').primaryKey(),
  value: jsonb('value').notNull(),
})
