import type { Context } from 'hono'
import type { ZodError } from 'zod'
import type { AppEnv } from '../app.ts'
import { errorAnswer } from './error-handler.ts'

type Result = { target: string } & ({ success: true } | { success: false; error: ZodError })

/** The hook of every route: input that its schema refuses is answered with what was wrong, and where. */
export function answerInvalid(result: Result, c: Context<AppEnv>): Response | undefined {
  if (result.success) return undefined
  const issues = result.error.issues.map((issue) => ({ in: result.target, path: issue.path.join('.'), message: issue.message }))
  const first = issues[0]
  const where = first === undefined || first.path === '' ? result.target : `${first.path} (${result.target})`
  return errorAnswer(c, 'invalid_request', `The request is not valid: ${where}: ${first?.message ?? 'unreadable'}`, 400, { issues })
}
