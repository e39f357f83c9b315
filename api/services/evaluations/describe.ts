import { asc, eq, inArray } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { derivationPatches, derivations, files, jobs } from '../../../db/schema.ts'
import type { EvaluationResult, EvaluationSpec } from '../../../patch/evaluation.ts'
import type { RequestContext } from '../../context.ts'
import { findJobView, type JobView } from '../jobs/job-view.ts'
import { modelVersionReferences } from '../models/find.ts'
import { patchVersionReferences } from '../patches/find.ts'
import { findVisibleEvaluation, type VisibleEvaluation } from './find-visible.ts'

interface Version { reference: string; digest: string }

export interface EvaluationSummaryView {
  id: string
  state: 'queued' | 'ready' | 'failed'
  target: Version
  /** Its one patch, as it was published. */
  patch: (Version & { base: Version }) | null
  /** All of its patches, in the order of summation. */
  patches: (Version & { weight: number })[]
  spec: EvaluationSpec
  /** Null until it is ready. */
  result: EvaluationResult | null
  createdAt: string
  readyAt: string | null
}

export interface EvaluationView extends EvaluationSummaryView {
  /** What was recorded of each question. */
  files: { path: string; size: number; etag: string }[]
  job: JobView | null
}

/** An evaluation, ready or on its way, for whoever may see all that it is about. */
export async function describeEvaluation({ ctx, input }: { ctx: RequestContext; input: { id: string } }): Promise<EvaluationView> {
  const found = await findVisibleEvaluation({ ctx, id: input.id })
  const [summary] = await summarizeEvaluations(ctx.db, [found])
  const { jobId } = found.evaluation
  return {
    ...summary!,
    files: await ctx.db.select({ path: files.path, size: files.size, etag: files.etag }).from(files).where(eq(files.evaluationId, input.id)).orderBy(asc(files.path)),
    job: jobId === null ? null : await findJobView(ctx.db, eq(jobs.id, jobId)),
  }
}

/** As lists show them, in the order given. */
export async function summarizeEvaluations(db: Database, found: readonly VisibleEvaluation[]): Promise<EvaluationSummaryView[]> {
  const models = await modelVersionReferences(db, found.flatMap(({ evaluation, baseVersionId }) => [evaluation.targetVersionId, ...(baseVersionId === null ? [] : [baseVersionId])]))
  const patches = await patchVersionReferences(db, found.flatMap(({ evaluation }) => evaluation.patchVersionId ?? []))
  const merged = await patchesOf(db, found.flatMap(({ evaluation }) => (evaluation.patchVersionId === null ? (evaluation.derivationId ?? []) : [])))
  return found.map(({ evaluation, targetDigest, patchDigest, baseVersionId, baseDigest }) => ({
    id: evaluation.id,
    state: evaluation.state,
    target: { reference: models.get(evaluation.targetVersionId)!, digest: targetDigest },
    patch: evaluation.patchVersionId === null ? null : { reference: patches.get(evaluation.patchVersionId)!, digest: patchDigest!, base: { reference: models.get(baseVersionId!)!, digest: baseDigest! } },
    patches: evaluation.patchVersionId === null ? (merged.get(evaluation.derivationId ?? '') ?? []) : [{ reference: patches.get(evaluation.patchVersionId)!, digest: patchDigest!, weight: 1 }],
    spec: evaluation.spec,
    result: evaluation.result,
    createdAt: evaluation.createdAt.toISOString(),
    readyAt: evaluation.readyAt?.toISOString() ?? null,
  }))
}

/** Of merged models, by id. */
async function patchesOf(db: Database, derivationIds: readonly string[]): Promise<Map<string, EvaluationSummaryView['patches']>> {
  if (derivationIds.length === 0) return new Map()
  const rows = await db
    .select({ id: derivations.id, recipe: derivations.recipe, patchVersionId: derivationPatches.patchVersionId, position: derivationPatches.position, weight: derivationPatches.weight })
    .from(derivationPatches)
    .innerJoin(derivations, eq(derivations.id, derivationPatches.derivationId))
    .where(inArray(derivations.id, [...new Set(derivationIds)]))
    .orderBy(asc(derivationPatches.position))
  const references = await patchVersionReferences(db, rows.map(({ patchVersionId }) => patchVersionId))
  const byId = Map.groupBy(rows, ({ id }) => id)
  return new Map([...byId].map(([id, parts]) => [id, parts.map(({ recipe, patchVersionId, position, weight }) => ({ reference: references.get(patchVersionId)!, digest: recipe.patches[position]!.digest, weight }))]))
}
