import type { Context, MiddlewareHandler } from 'hono'
import type { ZodError } from 'zod'
import type { AppEnv } from '../app.ts'
import { unkeepablePath } from '../../patch/keepable-text.ts'
import { ApiError } from '../errors.ts'
import { errorAnswer } from './error-handler.ts'

type Result = { target: string } & ({ success: true; data: unknown } | { success: false; error: ZodError })

const UNKEEPABLE = 'holds the character U+0000 or half a surrogate pair, which cannot be kept'

/** The hook of every route: input that its schema refuses, or no database keeps, is answered with what was wrong, and where. */
export function answerInvalid(result: Result, c: Context<AppEnv>): Response | undefined {
  if (result.success) {
    const path = unkeepablePath(result.data)?.join('.')
    if (path === undefined) return undefined
    return errorAnswer(c, 'invalid_request', `The request is not valid: ${path === '' ? result.target : `${path} (${result.target})`}: ${UNKEEPABLE}`, 400, { issues: [{ in: result.target, path, message: UNKEEPABLE }] })
  }
  const issues = result.error.issues.map((issue) => ({ in: result.target, path: issue.path.join('.'), message: issue.message }))
  const first = issues[0]
  const where = first === undefined || first.path === '' ? result.target : `${first.path} (${result.target})`
  return errorAnswer(c, 'invalid_request', `The request is not valid: ${where}: ${first?.message ?? 'unreadable'}`, 400, { issues })
}

/** For the routes that have no schema too: an address with U+0000 in it would reach the database. In the path it names nothing. */
export function refuseUnkeepableUrl(): MiddlewareHandler {
  return async (c, next) => {
    const [path, query = ''] = c.req.url.split('?', 2)
    if (path!.includes('%00')) throw new ApiError('not_found', 'There is nothing at this address: it holds the character U+0000 (%00), which nothing here has in its name.')
    if (query.includes('%00')) throw new ApiError('invalid_request', 'The query holds the character U+0000 (%00), which nothing here has in its name.')
    await next()
  }
}
