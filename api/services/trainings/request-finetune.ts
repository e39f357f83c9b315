import { eq } from 'drizzle-orm'
import { jobs } from '../../../db/schema.ts'
import { isTaskName, readTaskFile } from '../../../patch/task-file.ts'
import type { FinetuneSpec } from '../../../patch/training.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { discardStaged } from '../blobs/discard.ts'
import { findJobView, type JobView } from '../jobs/job-view.ts'
import { findOrganization } from '../organizations/find.ts'
import { checkNewPatchVersion, findBase, reservePatchVersion, type NewPatchVersion } from '../patches/draft-version.ts'
import { readReference } from '../resolutions/select-patches.ts'
import { inTransaction } from '../transaction.ts'
import { findTrainingData } from './find-data.ts'
import { startTraining } from './start.ts'

export interface FinetuneRequest extends Omit<FinetuneSpec, 'task'>, Omit<NewPatchVersion, 'organization' | 'name' | 'version' | 'base'> {
  /** The patch version to be: `org/name@version`. */
  readonly patch: string
  /** Null where there is a task file. */
  readonly task: string | null
}

export interface TrainingStarted { reference: string; job: JobView }

/** Has a job fine-tune a patch on a base and publish it as this version. For who may publish to its organization. */
export async function requestFinetune({ ctx, input }: { ctx: RequestContext; input: FinetuneRequest }): Promise<TrainingStarted> {
  const names = readVersionName(input.patch)
  const organization = await findOrganization({ ctx, name: names.organization })
  assertMayPublish(ctx.principal, organization)
  const { userId } = ctx.principal
  const { patch: _, task, taskFile, data: named, base, options, ...settings } = input
  const version = { ...names, base, ...settings }
  checkNewPatchVersion(version)
  const name = readTask(task, taskFile)
  const baseVersionId = await findBase({ ctx, reference: base })
  const { data, datasetVersionId } = await findTrainingData({ ctx, data: named })
  const spec = { base, task: name, taskFile, data, options }
  const { reference, jobId, discard } = await inTransaction(ctx, async (tx) => {
    const { subject, settle } = await reservePatchVersion({ tx, organization, input: version, baseVersionId, userId })
    const { job, discard } = await startTraining({ ctx, tx, subject, training: { kind: 'finetune', spec }, datasetVersionId, userId })
    await settle()
    return { reference: subject.reference, jobId: job.id, discard }
  })
  await discardStaged(ctx.blobs, discard)
  ctx.launcher.wake(['finetune'])
  return { reference, job: (await findJobView(ctx.db, eq(jobs.id, jobId)))! }
}

/** `org/name@version`, whole. */
export function readVersionName(text: string): { organization: string; name: string; version: string } {
  const { organization, name, selector, weight } = readReference(text)
  if (selector === null || weight !== 1) throw new ApiError('invalid_reference', `${text} names no version to be: write ${organization}/${name}@version.`)
  return { organization, name, version: selector }
}

function readTask(task: string | null, taskFile: string | null): string {
  const own = taskFile === null ? null : readTaskFile(taskFile).task
  const name = own ?? task
  if (name === null) throw new ApiError('invalid_request', 'Name a task, such as boolq, or send a task file.')
  if (own !== null && task !== null && task !== own) throw new ApiError('invalid_request', `The task file holds the task ${own}, not ${task}. Name that one, or none.`)
  if (!isTaskName(name)) throw new ApiError('invalid_request', `${JSON.stringify(name)} is no name of a task: letters, digits, ".", "_" and "-".`)
  return name
}
