import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { JobFailure } from './job-failure.ts'

/**
 * The folder of data that a job names as `organization/name`, below PORTLLM_DATA. Retryable where this runner does not
 * have it: another one may. Throws JobFailure.
 */
export async function dataFolder(name: string): Promise<string> {
  const root = process.env.PORTLLM_DATA
  if (!root) throw new JobFailure('no_data', `This runner has no data of its own (PORTLLM_DATA is not set), so it does not have ${name}.`, true)
  // The registry has checked the name; a runner does not take its word for a path.
  const isName = /^[A-Za-z0-9][A-Za-z0-9._-]*\/[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && !name.includes('..')
  const folder = join(root, name)
  if (!isName || !(await stat(folder).catch(() => null))?.isDirectory()) throw new JobFailure('no_data', `This runner has no folder ${name} below its PORTLLM_DATA.`, true)
  return folder
}
