import { createRoute, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import type { App, AppEnv } from '../../app.ts'
import { findFile } from '../../services/files/find-file.ts'
import type { FileSubject } from '../../services/files/find-owner.ts'
import { errorResponses } from '../error-responses.ts'
import { tokenOptional } from '../security.ts'
import { answerFile } from './answer-file.ts'

const Path = z.string().openapi({ description: 'Path of the file; it may hold "/".', example: 'model.safetensors' })

const Conditions = z.object({
  Range: z.string().optional().openapi({ description: 'One range of bytes; several are answered with the whole file.', example: 'bytes=0-1023' }),
  'If-Range': z.string().optional().openapi({ description: 'The range is sent only if this is the ETag.' }),
  'If-Match': z.string().optional(),
  'If-None-Match': z.string().optional(),
})

const Bytes = z.string().openapi({ format: 'binary' })
const bytesContent = { 'application/octet-stream': { schema: Bytes } }

const Headers = z.object({
  ETag: z.string().openapi({ description: 'Strong. The SHA-256 of an uploaded file; for a file that a merge makes, of its derivation and path.' }),
  'Content-Length': z.string(),
  'Accept-Ranges': z.literal('bytes'),
  'Cache-Control': z.string(),
})

interface FileOperation {
  /** In the notation of openapi.yaml, up to the file's path. */
  path: string
  params: z.ZodObject
  /** `ModelFile` for the operations `getModelFile` and `headModelFile`. */
  name: string
  tag: string
  what: string
  subject: (c: Context<AppEnv>) => FileSubject
  /** Statuses of GET beyond those of every file. */
  errors?: readonly Parameters<typeof errorResponses>[number][]
}

/** Registers GET and HEAD of the files below `path`. They are one handler: Hono answers HEAD with the route of GET. */
export function registerFileOperations(app: App, { path, params, name, tag, what, subject, errors = [] }: FileOperation): void {
  const shared = {
    path: `${path}/files/{path}`,
    tags: [tag],
    security: tokenOptional,
    request: { params: params.extend({ path: Path }), headers: Conditions },
  }
  app.openAPIRegistry.registerPath(
    createRoute({
      ...shared,
      method: 'get',
      operationId: `get${name}`,
      summary: `A file of ${what}`,
      description: 'Immutable bytes, whole or one range, with the conditional requests of RFC 9110.',
      responses: {
        200: { description: 'The whole file.', headers: Headers, content: bytesContent },
        206: { description: 'The range.', headers: Headers.extend({ 'Content-Range': z.string() }), content: bytesContent },
        304: { description: 'If-None-Match names the ETag.' },
        ...errorResponses(404, 409, 412, 416, ...errors),
      },
    }),
  )
  app.openAPIRegistry.registerPath(
    createRoute({
      ...shared,
      method: 'head',
      operationId: `head${name}`,
      summary: `Size and ETag of a file of ${what}`,
      responses: {
        200: { description: 'The headers of GET without a range.', headers: Headers },
        304: { description: 'If-None-Match names the ETag.' },
        ...errorResponses(404, 409, 412),
      },
    }),
  )
  // The route's own notation has no parameter that may hold "/".
  app.get(`${path.replaceAll(/\{(.+?)\}/g, ':$1')}/files/:path{.+}`, async (c) => answerFile(c, await findFile({ ctx: c.var.ctx, input: { subject: subject(c), path: c.req.param('path')! } })))
}
