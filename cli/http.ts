import type { Reason } from '../patch/resolution.ts'
import type { Connection } from './config.ts'
import { CliError, EXIT, type ExitCode } from './exit.ts'
import { explainNetworkError, TransientError, withRetries } from './network.ts'
import { describeReason } from './reasons.ts'

/** Answers of a gateway or of an overloaded registry, which may be different the next time. */
const RETRIED_STATUSES: ReadonlySet<number> = new Set([429, 502, 503, 504])

const EXIT_BY_CODE: Readonly<Record<string, ExitCode>> = {
  invalid_request: EXIT.usage, invalid_name: EXIT.usage, invalid_reference: EXIT.usage, incompatible: EXIT.incompatible, digest_mismatch: EXIT.damaged, disk_full: EXIT.diskFull,
}
const EXIT_BY_STATUS: Readonly<Record<number, ExitCode>> = {
  401: EXIT.authentication, 403: EXIT.authentication, 404: EXIT.notFound, 409: EXIT.conflict, 410: EXIT.notFound,
}

/** A fetch for one registry: again after network trouble where the method may be repeated; rejects with CliError. */
export function registryFetch(signal: AbortSignal): (request: Request) => Promise<Response> {
  return async (request) => {
    const attempt = async () => {
      const response = await fetch(request.clone(), { signal })
      if (RETRIED_STATUSES.has(response.status) && (await isTransient(response.clone()))) throw new TransientError(`${new URL(request.url).origin} answered ${response.status}`)
      return response
    }
    try {
      return await (request.method === 'POST' ? attempt() : withRetries(attempt, signal))
    } catch (error) {
      signal.throwIfAborted()
      throw explainNetworkError(error, request.url)
    }
  }
}

/** A merge that has failed is also a 502, but stays failed. */
async function isTransient(response: Response): Promise<boolean> {
  const body = (await response.json().catch(() => null)) as { error?: { code?: unknown } } | null
  return body?.error?.code !== 'merge_failed'
}

/** The data of an answer, or its error as a CliError. */
export async function unwrap<T>(answer: Promise<{ data?: T; error?: unknown; response: Response }>, connection: Connection): Promise<T> {
  let settled: Awaited<typeof answer>
  try {
    settled = await answer
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw new CliError(EXIT.network, 'not_a_registry', `${connection.registry} answered something that is not JSON. Is it the address of a PortLLM registry?`, { cause: error })
  }
  const { data, error, response } = settled
  if (response.ok) return data as T
  throw apiError(error, response.status, connection)
}

export function apiError(body: unknown, status: number, connection: Connection): CliError {
  const { code, message, requestId, details } = (body as { error?: { code?: unknown; message?: unknown; requestId?: unknown; details?: Record<string, unknown> } } | null)?.error ?? {}
  if (typeof code !== 'string' || typeof message !== 'string') {
    return new CliError(EXIT.network, 'not_a_registry', `${connection.registry} answered ${status} without saying why. Is it the address of a PortLLM registry?`)
  }
  const exit = EXIT_BY_CODE[code] ?? EXIT_BY_STATUS[status] ?? EXIT.failure
  const hint = status === 401 ? (connection.token === null ? ' You are not logged in: run `portllm login`, or set PORTLLM_TOKEN.' : ' Log in again with `portllm login`.') : ''
  return new CliError(exit, code, `${message.replace(/([^.!?])$/, '$1.')}${hint}${listRefusals(details)}`, { details: { ...details, requestId } })
}

/** Every refusal in a line of its own, where an answer has several or its message leaves out what to do. */
function listRefusals(details: Record<string, unknown> | undefined): string {
  const reasons = Array.isArray(details?.reasons) ? (details.reasons as Reason[]) : []
  return reasons.filter(({ severity }) => severity === 'refusal').map((reason) => `\n  - ${describeReason(reason)}`).join('')
}
