import type { ContentfulStatusCode } from 'hono/utils/http-status'

/** Every error code that the API can answer with, and its HTTP status. Closed: clients may switch over it. */
export const ERROR_STATUS = {
  invalid_request: 400,
  invalid_name: 400,
  invalid_reference: 400,
  invalid_adapter: 400,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  base_not_found: 404,
  method_not_allowed: 405,
  already_exists: 409,
  version_exists: 409,
  upload_incomplete: 409,
  wrong_state: 409,
  stale_attempt: 409,
  yanked: 410,
  precondition_failed: 412,
  body_too_large: 413,
  range_not_satisfiable: 416,
  incompatible: 422,
  digest_mismatch: 422,
  rejected: 422,
  too_many_requests: 429,
  internal: 500,
  merge_failed: 502,
  analysis_failed: 502,
  evaluation_failed: 502,
  unavailable: 503,
  disk_full: 507,
} as const satisfies Record<string, ContentfulStatusCode>

export type ErrorCode = keyof typeof ERROR_STATUS

/** An error whose message may be shown to the client: what was wrong, where, and what to do. */
export class ApiError extends Error {
  readonly code: ErrorCode
  readonly details: Record<string, unknown> | undefined
  constructor(code: ErrorCode, message: string, details?: Record<string, unknown>, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ApiError'
    this.code = code
    this.details = details
  }
  get status(): ContentfulStatusCode {
    return ERROR_STATUS[this.code]
  }
}

/** What one may not see answers exactly like what does not exist: same words for both. */
export function notFound(what: string, name: string): ApiError {
  return new ApiError('not_found', `${what} ${name} does not exist, or you may not see it`)
}
