import { z } from '@hono/zod-openapi'
import { ERROR_STATUS, type ErrorCode } from '../errors.ts'

const codes = Object.keys(ERROR_STATUS) as [ErrorCode, ...ErrorCode[]]

export const ErrorBody = z
  .object({
    error: z.object({
      code: z.enum(codes).openapi({ description: 'What went wrong, from a closed list.' }),
      message: z.string().openapi({ description: 'What was wrong, where, and what to do.' }),
      requestId: z.string().openapi({ description: 'Names the entry in the log of the registry.' }),
      details: z.record(z.string(), z.unknown()).optional(),
    }),
  })
  .openapi('Error')

type ErrorStatus = (typeof ERROR_STATUS)[ErrorCode]
const ALWAYS = [400, 401, 413, 429, 500, 507] as const
type Always = (typeof ALWAYS)[number]
interface ErrorResponse { description: string; content: { 'application/json': { schema: typeof ErrorBody } } }

/** The error answers of an operation: those named, and the ones that every operation may give. */
export function errorResponses<const S extends ErrorStatus = never>(...statuses: S[]): { [K in S | Always]: ErrorResponse } {
  const all = [...new Set<ErrorStatus>([...ALWAYS, ...statuses])].sort((a, b) => a - b)
  const responses = all.map((status) => [status, { description: describe(status), content: { 'application/json': { schema: ErrorBody } } }])
  return Object.fromEntries(responses) as { [K in S | Always]: ErrorResponse }
}

function describe(status: ErrorStatus): string {
  return codes.filter((code) => ERROR_STATUS[code] === status).map((code) => `\`${code}\``).join(', ')
}

export function jsonContent<T extends z.ZodType>(schema: T, description: string): { description: string; content: { 'application/json': { schema: T } } } {
  return { description, content: { 'application/json': { schema } } }
}

export function jsonBody<T extends z.ZodType>(schema: T): { content: { 'application/json': { schema: T } }; required: true } {
  return { content: { 'application/json': { schema } }, required: true }
}
