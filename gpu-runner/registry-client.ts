import pRetry from 'p-retry'
import { z } from 'zod'
import { claimAnswer, heartbeatAnswer, outputPlan, type Claim, type JobKind, type JobResult, type MadeFile, type OutputPlan, type Progress } from './protocol.ts'

const REQUEST_MILLISECONDS = 30_000
/** A result may be a manifest of 100,000 tensors, which the registry then stores in one transaction. */
const COMPLETE_MILLISECONDS = 120_000
const RETRIES = 5

/** The registry's refusal, or its silence after every retry (status 0). */
export class RegistryError extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.name = 'RegistryError'
    this.status = status
    this.code = code
  }
}

/** Another attempt holds the job now: stop, and report nothing. */
export class StaleAttemptError extends Error {
  constructor() {
    super('another attempt holds this job now')
    this.name = 'StaleAttemptError'
  }
}

export interface RegistryClient {
  /** The next job, or null where none came within `waitSeconds`. Not retried. Throws RegistryError. */
  claim(request: { kinds: readonly JobKind[]; waitSeconds: number; runner: { name: string } }, signal: AbortSignal): Promise<Claim | null>
  attempt(claim: Claim): AttemptClient
}

/** All throw RegistryError, or StaleAttemptError where the attempt has lost its job. */
export interface AttemptClient {
  /** Keeps the lease; true: the job was cancelled. */
  heartbeat(progress: Progress | null, signal: AbortSignal): Promise<{ cancel: boolean }>
  /** Where to put what the attempt has made. */
  outputs(files: readonly MadeFile[], signal: AbortSignal): Promise<OutputPlan>
  complete(result: JobResult): Promise<void>
  fail(failure: { code: string; message: string; retryable: boolean }, signal?: AbortSignal): Promise<void>
}

export function registryClient({ url, token }: { url: string; token: string }): RegistryClient {
  const base = url.replace(/\/+$/, '')
  return {
    async claim(request, signal) {
      const answer = await post(`${base}/v1/runner/claim`, token, request, AbortSignal.any([signal, AbortSignal.timeout(request.waitSeconds * 1000 + REQUEST_MILLISECONDS)]))
      return answer === null ? null : read(claimAnswer, answer)
    },
    attempt({ job, token: attemptToken }) {
      const send = (verb: string, body: object, milliseconds = REQUEST_MILLISECONDS, signal?: AbortSignal) =>
        patiently(() => {
          const timeout = AbortSignal.timeout(milliseconds)
          return post(`${base}/v1/runner/jobs/${encodeURIComponent(job.id)}/${verb}`, attemptToken, body, signal ? AbortSignal.any([signal, timeout]) : timeout)
        }, signal)
      return {
        heartbeat: async (progress, signal) => read(heartbeatAnswer, await send('heartbeat', { progress }, REQUEST_MILLISECONDS, signal)),
        outputs: async (files, signal) => read(outputPlan, await send('outputs', { files }, COMPLETE_MILLISECONDS, signal)),
        complete: async (result) => void (await send('complete', { result }, COMPLETE_MILLISECONDS)),
        fail: async (failure, signal) => void (await send('fail', failure, REQUEST_MILLISECONDS, signal)),
      }
    },
  }
}

/** Again after what may pass: no connection, 5xx, 429. */
function patiently<T>(send: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  return pRetry(send, {
    retries: RETRIES,
    minTimeout: 300,
    maxTimeout: 10_000,
    randomize: true,
    ...(signal ? { signal } : {}),
    shouldRetry: ({ error }) => error instanceof RegistryError && isTransient(error),
  })
}

export function isTransient({ status }: RegistryError): boolean {
  return status === 0 || status >= 500 || status === 429 || status === 408
}

const errorBody = z.object({ error: z.object({ code: z.string(), message: z.string() }) })

async function post(url: string, token: string, body: object, signal: AbortSignal): Promise<unknown> {
  let response: Response
  let text: string
  try {
    response = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
      redirect: 'error',
      signal,
    })
    text = await response.text()
  } catch (error) {
    throw new RegistryError(0, 'unreachable', `the registry at ${new URL(url).origin} gives no answer: ${reasonOf(error)}`)
  }
  if (response.ok) return response.status === 204 || text === '' ? null : parse(text)
  const { success, data } = errorBody.safeParse(parse(text))
  const code = success ? data.error.code : 'unknown'
  if (response.status === 409 && code === 'stale_attempt') throw new StaleAttemptError()
  throw new RegistryError(response.status, code, success ? data.error.message : `the registry answered ${response.status}`)
}

/** fetch says only "fetch failed"; the reason is inside. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error
  return inner instanceof Error ? inner.message || inner.name : String(inner)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function read<T>(schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw new RegistryError(200, 'bad_answer', `the registry's answer is not understood, so it may be of another version than this runner: ${z.prettifyError(parsed.error)}`)
}
