import { JobFailure } from '../job-failure.ts'
import { pythonPath } from '../python-environment.ts'
import { PythonFailure, type PythonWatch } from '../python.ts'
import type { ResearchContext } from './job-context.ts'

/** Finding an environment takes no time; making one takes minutes, which people are told. */
const SILENT_MILLISECONDS = 1000

/** Runs one verb of Python for a job, in an environment that is made first where it is missing. Throws JobFailure. */
export async function research<T>({ signal, report, log }: ResearchContext, run: (watch: PythonWatch) => Promise<T>): Promise<T> {
  const installing = setTimeout(() => report({ phase: 'installing Python with PyTorch and lm-eval', done: 0, total: 1, unit: 'packages' }), SILENT_MILLISECONDS)
  try {
    await pythonPath()
  } catch (error) {
    throw new JobFailure('python_unavailable', error instanceof Error ? error.message : String(error), true)
  } finally {
    clearTimeout(installing)
  }
  try {
    return await run({ signal, onProgress: report, onNote: log, onLog: log })
  } catch (error) {
    if (error instanceof PythonFailure) throw new JobFailure(error.code, error.message, error.retryable)
    throw error
  }
}
