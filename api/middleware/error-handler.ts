import type { Context } from 'hono'
import { HTTPException } from 'hono/http-exception'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { AppEnv } from '../app.ts'
import type { RequestContext } from '../context.ts'
import { ApiError, type ErrorCode } from '../errors.ts'
import { PlainYamlError } from '../../patch/plain-yaml.ts'
import { ReferenceError } from '../../patch/reference.ts'
import { DiskFullError, isDiskFull } from '../ports/disk-full.ts'
import { createConsoleLog } from '../ports/log.ts'

/** What is wrong here and not with the request or its job. */
const OURS: ReadonlySet<ErrorCode> = new Set(['internal', 'unavailable', 'disk_full'])

/** Every error becomes the one shape. What was not meant for the client goes to the log and says only `internal`. */
export function handleError(error: Error, c: Context<AppEnv>): Response {
  const known = toApiError(error)
  if (OURS.has(known.code)) {
    // Without a context nothing is connected yet, and so no other log is there.
    const log = (c.var.ctx as RequestContext | undefined)?.log ?? createConsoleLog({ requestId: c.var.requestId })
    log.error({ method: c.req.method, path: c.req.path, code: known.code, err: error }, 'The request failed')
  }
  return errorAnswer(c, known.code, known.message, known.status, known.details)
}

export function errorAnswer(c: Context<AppEnv>, code: ErrorCode, message: string, status: ContentfulStatusCode, details?: Record<string, unknown>): Response {
  if (status === 401) c.header('WWW-Authenticate', 'Bearer')
  if (typeof details?.['retryAfterSeconds'] === 'number') c.header('Retry-After', String(details['retryAfterSeconds']))
  return c.json({ error: { code, message, requestId: c.var.requestId, ...(details === undefined ? {} : { details }) } }, status)
}

function toApiError(error: Error): ApiError {
  if (error instanceof ApiError) return error
  if (error instanceof ReferenceError) return new ApiError(error.code === 'bad-name' || error.code === 'bad-version' ? 'invalid_name' : 'invalid_reference', error.message)
  if (error instanceof PlainYamlError) return new ApiError('invalid_request', error.message)
  if (error instanceof HTTPException) {
    if (error.status === 415) return new ApiError('invalid_request', 'The body must be JSON. Send it with Content-Type: application/json.')
    return new ApiError(error.status === 413 ? 'body_too_large' : 'invalid_request', error.message || 'The request could not be read.')
  }
  if (isDiskFull(error)) {
    const what = error instanceof DiskFullError ? `The disk that holds ${error.folder} is full` : 'The disk of the registry\'s database is full'
    return new ApiError('disk_full', `${what}, so nothing was stored. Free space there, then send the request again.`)
  }
  return new ApiError('internal', 'Something went wrong in the registry. The request id names the entry in its log.')
}
