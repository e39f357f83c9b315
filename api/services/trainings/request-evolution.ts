import { eq } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import { checkEvolveConfig } from '../../../patch/evolve-config.ts'
import { checkModelVersion, checkName } from '../../../patch/reference.ts'
import type { EvolveSpec } from '../../../patch/training.ts'
import type { RequestContext } from '../../context.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { discardStaged } from '../blobs/discard.ts'
import { findJobView } from '../jobs/job-view.ts'
import { reserveModelVersion, type NewModelVersion, type PARENT_KINDS } from '../models/draft-version.ts'
import { findOrganization } from '../organizations/find.ts'
import { inTransaction } from '../transaction.ts'
import { findTrainingData } from './find-data.ts'
import { readVersionName, type TrainingStarted } from './request-finetune.ts'
import { startTraining } from './start.ts'

export interface EvolutionRequest extends EvolveSpec, Pick<NewModelVersion, 'description' | 'visibility'> {
  /** The model version to be: `org/name@version`. */
  readonly model: string
  readonly parentKind: (typeof PARENT_KINDS)[number]
}

/** Has a job train a model version further and publish the result as this version. For who may publish to its organization. */
export async function requestEvolution({ ctx, input }: { ctx: RequestContext; input: EvolutionRequest }): Promise<TrainingStarted> {
  const names = readVersionName(input.model)
  const organization = await findOrganization({ ctx, name: names.organization })
  assertMayPublish(ctx.principal, organization)
  const { userId } = ctx.principal
  const { model: _, parentKind, parent, config, data: named, ...settings } = input
  checkName(names.name)
  checkModelVersion(names.version)
  checkEvolveConfig(config, { hasData: named !== null })
  const { data, datasetVersionId } = await findTrainingData({ ctx, data: named })
  const { reference, jobId, discard } = await inTransaction(ctx, async (tx) => {
    const { subject, settle } = await reserveModelVersion({ ctx, tx, organization, input: { ...names, ...settings, parent: { reference: parent, kind: parentKind } }, userId })
    const { job, discard } = await startTraining({ ctx, tx, subject, training: { kind: 'evolve', spec: { parent, config, data } }, datasetVersionId, userId })
    await settle()
    return { reference: subject.reference, jobId: job.id, discard }
  })
  await discardStaged(ctx.blobs, discard)
  ctx.launcher.wake(['evolve'])
  return { reference, job: (await findJobView(ctx.db, eq(jobs.id, jobId)))! }
}
