import type { ServerResponse } from 'node:http'
import type { Context } from 'hono'
import type { AppEnv } from '../../app.ts'
import { immutable } from '../../middleware/caching.ts'
import { errorAnswer } from '../../middleware/error-handler.ts'
import { alreadySent, sendStream } from '../../ports/send-stream.ts'
import { contentHeaders, fileHeaders } from '../../services/files/file-headers.ts'
import type { FoundFile } from '../../services/files/find-file.ts'
import { answerFileRequest } from '../../services/files/http-conditions.ts'
import { openFile } from '../../services/files/open-file.ts'

/** GET or HEAD of one file, whole or one range, as RFC 9110 wants it. Nothing is opened for HEAD. */
export async function answerFile(c: Context<AppEnv>, file: FoundFile): Promise<Response> {
  const { ctx } = c.var
  const answer = answerFileRequest({
    method: c.req.method,
    headers: { ifMatch: c.req.header('if-match'), ifNoneMatch: c.req.header('if-none-match'), ifRange: c.req.header('if-range'), range: c.req.header('range') },
    etag: file.etag,
    size: file.size,
  })
  const about = fileHeaders({ etag: file.etag, caching: immutable(c, file.visibility === 'public') })
  if (answer.status === 304) return new Response(null, { status: 304, headers: about })
  if (answer.status === 412 || answer.status === 416) return answerFailure(c, file, answer.status)
  const range = answer.status === 206 ? answer.range : { offset: 0, length: file.size }
  const headers: Record<string, string> = { ...about, ...contentHeaders(file.path), 'Content-Length': String(range.length) }
  if (answer.status === 206) headers['Content-Range'] = `bytes ${range.offset}-${range.offset + range.length - 1}/${file.size}`
  if (c.req.method === 'HEAD' || range.length === 0) return new Response(null, { status: answer.status, headers })
  // On Node the socket is ours to write to: it tells when a chunk's memory is free again.
  const { outgoing } = c.env as { outgoing?: ServerResponse }
  const body = await openFile({ ctx, file, range, reuse: outgoing !== undefined })
  if (outgoing === undefined) return new Response(body, { status: answer.status, headers })
  outgoing.writeHead(answer.status, { ...headers, 'X-Request-Id': c.var.requestId })
  await sendStream(body, outgoing, ctx.log)
  return alreadySent()
}

function answerFailure(c: Context<AppEnv>, file: FoundFile, status: 412 | 416): Response {
  c.header('ETag', `"${file.etag}"`)
  if (status === 412) {
    return errorAnswer(c, 'precondition_failed', `The ETag of ${file.path} is "${file.etag}", which If-Match does not name. Fetch the file anew.`, status)
  }
  c.header('Content-Range', `bytes */${file.size}`)
  return errorAnswer(c, 'range_not_satisfiable', `${file.path} has ${file.size} bytes; the range ${c.req.header('range')} is not in it.`, status)
}
