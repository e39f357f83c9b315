import { eq } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { analyses, modelVersions, patchVersions } from '../../../db/schema.ts'
import { planAnalysis, type AnalysisPlan } from '../../../patch/analysis-plan.ts'
import { checkCompatibility } from '../../../patch/compatibility.ts'

interface PlannedVersion { readonly id: string; readonly digest: string }

export interface PlannedAnalysis extends AnalysisPlan {
  readonly patch: PlannedVersion
  readonly base: PlannedVersion
  readonly target: PlannedVersion
}

/** What an analysis reads and measures, from its versions alone: the same plan whenever it is made. */
export async function planStoredAnalysis({ db, id }: { db: Database; id: string }): Promise<PlannedAnalysis> {
  const [row] = await db
    .select({ patch: patchVersions, target: modelVersions })
    .from(analyses)
    .innerJoin(patchVersions, eq(patchVersions.id, analyses.patchVersionId))
    .innerJoin(modelVersions, eq(modelVersions.id, analyses.targetVersionId))
    .where(eq(analyses.id, id))
  if (row === undefined) throw new Error(`there is no analysis ${id}`)
  const { patch, target } = row
  const [base] = await db.select().from(modelVersions).where(eq(modelVersions.id, patch.baseVersionId))
  // Lineage and policy were judged when the analysis was asked for; the edits are what is measured.
  const { edits } = checkCompatibility({
    patch: patch.manifest!, base: { digest: base!.digest!, manifest: base!.manifest! }, target: { digest: target.digest!, manifest: target.manifest! }, lineage: { relation: 'descends', steps: [] },
  })
  const version = ({ id: versionId, digest }: { id: string; digest: string | null }) => ({ id: versionId, digest: digest! })
  return {
    patch: version(patch), base: version(base!), target: version(target),
    ...planAnalysis({ patch: patch.manifest!, base: base!.manifest!, target: target.manifest!, edits }),
  }
}
