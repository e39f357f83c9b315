import { eq } from 'drizzle-orm'
import { derivations } from '../../../db/schema.ts'
import { derivationId, type Derivation, type DerivationOptions } from '../../../patch/derivation.ts'
import { mergeRecipe } from '../../../patch/recipe.ts'
import { VERDICTS, type Lineage, type Reason, type Verdict } from '../../../patch/resolution.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { findAnalysisEvidence, type AnalysisEvidence } from '../analyses/find-evidence.ts'
import { findEvaluationEvidence, type EvaluationEvidence } from '../evaluations/find-evidence.ts'
import { findModelVersion, type FoundModelVersion } from '../models/find.ts'
import { inOrder } from './in-order.ts'
import { judgePatch, type Judgement } from './judge.ts'
import { readReference, selectPatches } from './select-patches.ts'

export interface ResolutionView {
  verdict: Verdict
  target: { reference: string; digest: string }
  patches: {
    reference: string
    digest: string
    weight: number
    base: { reference: string; digest: string }
    verdict: Verdict
    reasons: Reason[]
    edits: number
    lineage: Lineage
    evidence: (AnalysisEvidence | EvaluationEvidence)[]
  }[]
  derivation: string | null
  merged: 'ready' | 'queued' | 'absent' | null
}

/** May these patches go onto this target, and does the merged model exist already? The verdict is the worst of theirs. */
export async function resolvePatches({ ctx, input }: { ctx: RequestContext; input: { target: string; patches: readonly string[]; options?: DerivationOptions } }): Promise<ResolutionView> {
  const { target, judgements } = await judgeReferences({ ctx, input })
  const about = { ctx, targetVersionId: target.version.id, patchVersionIds: judgements.map(({ patch }) => patch.version.id) }
  const verdict = worstVerdict(judgements)
  const id = verdict === 'incompatible' ? null : await derivationId(recipeOf(target, judgements))
  const [analyses, evaluations, merged] = await Promise.all([findAnalysisEvidence(about), findEvaluationEvidence(about), id === null ? null : stateOf(ctx, id)])
  return {
    verdict,
    target: { reference: target.reference, digest: target.version.digest! },
    patches: judgements.map(({ patch, base, resolution, edits, lineage }) => ({
      reference: patch.reference, digest: patch.version.digest!, weight: patch.weight, base, verdict: resolution.verdict, reasons: [...resolution.reasons], edits: edits.length, lineage,
      evidence: [...(evaluations.get(patch.version.id) ?? []), ...(analyses.get(patch.version.id) ?? [])],
    })),
    derivation: id,
    merged,
  }
}

/** A published model version by `org/name@version`. */
export async function findTarget({ ctx, reference }: { ctx: RequestContext; reference: string }): Promise<FoundModelVersion> {
  const { organization, name, selector } = readReference(reference)
  if (selector === null) throw new ApiError('invalid_reference', `${reference} names no version: write ${organization}/${name}@version.`)
  const found = await findModelVersion({ ctx, organization, name, version: selector })
  if (found.version.state !== 'published') throw new ApiError('wrong_state', `${found.reference} is ${found.version.state}, not published: nothing can be merged onto it yet.`)
  return found
}

/** What resolution says of each patch on a target, all by reference. Throws as findTarget and selectPatches do. */
export async function judgeReferences({ ctx, input }: { ctx: RequestContext; input: { target: string; patches: readonly string[]; options?: DerivationOptions } }): Promise<{ target: FoundModelVersion; judgements: Judgement[] }> {
  const selecting = selectPatches({ ctx, references: input.patches })
  // A target that is not there is told first.
  selecting.catch(() => {})
  const target = await findTarget({ ctx, reference: input.target })
  const patches = await selecting
  return { target, judgements: await inOrder(patches, (patch) => judgePatch({ ctx, patch, target, options: input.options })) }
}

/** The same where the target has been found. */
export async function judgeAll({ ctx, target, references }: { ctx: RequestContext; target: FoundModelVersion; references: readonly string[] }): Promise<Judgement[]> {
  return inOrder(await selectPatches({ ctx, references }), (patch) => judgePatch({ ctx, patch, target }))
}

export function worstVerdict(judgements: readonly Judgement[]): Verdict {
  return VERDICTS[Math.max(...judgements.map(({ resolution }) => VERDICTS.indexOf(resolution.verdict)))]!
}

/** The derivation that a merge of these patches would be. Throws DerivationError. */
export function recipeOf(target: FoundModelVersion, judgements: readonly Judgement[]): Derivation {
  return mergeRecipe(target.version.digest!, judgements.map(({ patch, base, edits, untied }) => ({ digest: patch.version.digest!, weight: patch.weight, base: base.digest, edits, untied })))
}

async function stateOf(ctx: RequestContext, id: string): Promise<'ready' | 'queued' | 'absent'> {
  const [row] = await ctx.db.select({ state: derivations.state }).from(derivations).where(eq(derivations.id, id))
  return row === undefined || row.state === 'failed' ? 'absent' : row.state
}
