/** Why an attempt ends without a result. `retryable`: another attempt, or another runner, may succeed. */
export class JobFailure extends Error {
  readonly code: string
  readonly retryable: boolean

  constructor(code: string, message: string, retryable: boolean) {
    super(message)
    this.name = 'JobFailure'
    this.code = code
    this.retryable = retryable
  }
}

/** The failure that a full disk of the runner is; null for any other error. */
export function diskFailure(error: unknown): JobFailure | null {
  const code = (error as NodeJS.ErrnoException | null)?.code
  return code === 'ENOSPC' || code === 'EDQUOT' ? new JobFailure('disk_full', 'The disk of the runner is full. Free space there, or set PORTLLM_SCRATCH to a folder on another disk.', true) : null
}
