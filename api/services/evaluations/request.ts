import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { derivations, evaluations } from '../../../db/schema.ts'
import { evaluationIdentity, type EvaluationHow, type EvaluationSpec } from '../../../patch/evaluation.ts'
import { isTaskName, readTaskFile } from '../../../patch/task-file.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayStartEvaluation } from '../authorization/authorize.ts'
import { requestMerge } from '../derivations/request-merge.ts'
import { createJob, enqueueJob } from '../jobs/enqueue.ts'
import type { FoundModelVersion } from '../models/find.ts'
import { findDataOwner } from '../organizations/find-data-owner.ts'
import { findTarget, judgeAll } from '../resolutions/resolve.ts'
import { readReference, type SelectedPatch } from '../resolutions/select-patches.ts'
import { inTransaction } from '../transaction.ts'

export interface EvaluationRequest extends Omit<EvaluationSpec, 'how' | 'tasks'> {
  /** `org/name@version`. */
  readonly target: string
  readonly patch: string | null
  /** In place of `patch`: several in the order of summation, or one, each `org/name@…[:weight]`. */
  readonly patches: readonly string[]
  readonly how: EvaluationHow | null
  /** May be empty where there is a task file. */
  readonly tasks: readonly string[]
}

/**
 * The evaluation of a model, alone, with a patch, or with several merged into it. Returns its id; a job is on its way where it is not ready, which for a
 * merged model that is not merged yet waits for the merge. For whoever may see all that it is about.
 */
export async function requestEvaluation({ ctx, input }: { ctx: RequestContext; input: EvaluationRequest }): Promise<string> {
  assertMayStartEvaluation(ctx.principal)
  const { userId } = ctx.principal
  const references = readPatches(input)
  const spec = readSpec(input, references)
  const target = await findTarget({ ctx, reference: input.target })
  const patches = await findFittingPatches(ctx, target, references)
  const dataOrganizationId = spec.data === null ? null : await findDataOwner({ ctx, data: spec.data })
  const derivationId = spec.how === 'merged' ? await requestMerge({ ctx, input: { target: target.reference, patches: patches.map(({ reference, weight }) => `${reference}:${weight}`) } }) : null
  // One patch as it was published has evaluations of its own; several, or one with a weight, are told by their merged model.
  const one = patches.length === 1 && patches[0]!.weight === 1 ? patches[0]!.version.id : null
  const subject = { targetVersionId: target.version.id, patchVersionId: one }
  const identity = await evaluationIdentity({ target: subject.targetVersionId, patch: one ?? derivationId, spec })
  const { id, isMerged } = await inTransaction(ctx, async (tx) => {
    // Before the evaluation's own row: the end of a merge locks them in this order.
    const isMerged = derivationId === null || (await lockMerge(tx, derivationId))
    await tx.insert(evaluations).values({ identity, ...subject, derivationId, spec, dataOrganizationId, createdBy: userId }).onConflictDoNothing()
    const [row] = await tx.select().from(evaluations).where(eq(evaluations.identity, identity)).for('update')
    // One question, one job: whoever holds the row first starts it, and a failed one is started again.
    if (row!.state === 'ready' || (row!.state === 'queued' && row!.jobId !== null)) return { id: row!.id, isMerged }
    const job = await (isMerged ? enqueueJob : createJob)({ ctx, tx, kind: 'evaluate', organizationId: target.organization.id, subject: { evaluationId: row!.id } })
    await tx.update(evaluations).set({ state: 'queued', jobId: job.id }).where(eq(evaluations.id, row!.id))
    await recordAudit({ ctx, tx, entry: { organizationId: target.organization.id, action: 'evaluation.request', subject: row!.id, after: { target: target.reference, patches: patches.map(({ reference, weight }) => ({ reference, weight })), spec, job: job.id } } })
    return { id: row!.id, isMerged }
  })
  if (isMerged) ctx.launcher.wake(['evaluate'])
  return id
}

function readPatches({ patch, patches }: EvaluationRequest): string[] {
  if (patch !== null && patches.length > 0) throw new ApiError('invalid_request', 'Name either one patch (patch), or all in their order (patches).')
  return patch === null ? [...patches] : [patch]
}

function readSpec({ target: _, patch: __, patches: ___, how, tasks, ...rest }: EvaluationRequest, references: readonly string[]): EvaluationSpec {
  const isAlone = references.length === 0
  const chosen = how ?? (isAlone ? 'plain' : 'merged')
  if (chosen === 'peft' && (references.length > 1 || references.some((reference) => readReference(reference).weight !== 1))) {
    throw new ApiError('invalid_request', 'PEFT applies one patch as it was published: several, or one with a weight, are evaluated merged.')
  }
  if ((chosen === 'plain') !== isAlone) {
    throw new ApiError('invalid_request', isAlone ? `To evaluate ${chosen}, name the patch.` : 'With a patch, how is merged or peft; plain evaluates the target alone.')
  }
  const own = rest.taskFile === null ? [] : [readTaskFile(rest.taskFile).task]
  const all = [...new Set([...tasks, ...own])].sort()
  if (all.length === 0) throw new ApiError('invalid_request', 'Name at least one task, such as boolq, or send a task file.')
  const wrong = all.find((task) => !isTaskName(task))
  if (wrong !== undefined) throw new ApiError('invalid_request', `${JSON.stringify(wrong)} is no name of a task: letters, digits, ".", "_" and "-".`)
  return { ...rest, how: chosen, tasks: all }
}

async function findFittingPatches(ctx: RequestContext, target: FoundModelVersion, references: readonly string[]): Promise<SelectedPatch[]> {
  if (references.length === 0) return []
  const judgements = await judgeAll({ ctx, target, references })
  for (const { patch, resolution } of judgements) {
    const refused = resolution.reasons.filter(({ severity }) => severity === 'refusal')
    if (refused.length > 0) throw new ApiError('incompatible', `${patch.reference} does not fit ${target.reference}: ${refused[0]!.message}`, { reasons: refused.map((reason) => ({ patch: patch.reference, ...reason })) })
  }
  return judgements.map(({ patch }) => patch)
}

/** Whether the merged model is there; else its merge is on its way, and cannot end before this transaction. */
async function lockMerge(tx: Database, derivationId: string): Promise<boolean> {
  const [row] = await tx.select({ state: derivations.state }).from(derivations).where(eq(derivations.id, derivationId)).for('update')
  if (row!.state === 'failed') throw new ApiError('merge_failed', 'The merge that the evaluation needs has failed. Ask again to start another job.')
  return row!.state === 'ready'
}
