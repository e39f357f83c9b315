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
