import pRetry from 'p-retry'
import { CliError, EXIT } from './exit.ts'

/** An answer of a store or registry that may be different the next time. */
export class TransientError extends Error {
  /** The store no longer takes this signed request: ask for a new one. */
  readonly expired: boolean

  constructor(message: string, expired = false) {
    super(message)
    this.name = 'TransientError'
    this.expired = expired
  }
}

/** A store is in the middle of something long; a registry that cannot be reached should be told of soon. */
const TRANSFER_RETRIES = 5
const CALL_RETRIES = 3

/** Runs `attempt` again after network trouble, with growing pauses. Any other error ends it at once. */
export function withRetries<T>(attempt: () => Promise<T>, signal: AbortSignal, onRetry?: (error: Error) => void | Promise<void>): Promise<T> {
  return pRetry(attempt, {
    retries: onRetry === undefined ? CALL_RETRIES : TRANSFER_RETRIES, minTimeout: 250, maxTimeout: 8_000, randomize: true, signal,
    shouldRetry: ({ error }) => isNetworkError(error),
    onFailedAttempt: async ({ error, retriesLeft }) => {
      if (retriesLeft > 0 && isNetworkError(error)) await onRetry?.(error)
    },
  })
}

export function isNetworkError(error: unknown): boolean {
  if (error instanceof TransientError) return true
  if (!(error instanceof Error) || error.name === 'AbortError') return false
  return networkCode(error) !== null
}

const NETWORK_CODES = /^(ECONN|EHOST|ENET|ETIMEDOUT|EPIPE|EAI_|ENOTFOUND|UND_ERR_|ERR_STREAM_PREMATURE_CLOSE|CERT_|DEPTH_ZERO|SELF_SIGNED|ERR_TLS)/

/** undici hides the reason of `fetch failed` and `terminated` in the cause. */
function networkCode(error: Error): string | null {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const errors = at instanceof AggregateError ? at.errors : [at]
    for (const { code } of errors as { code?: unknown }[]) {
      if (typeof code === 'string' && NETWORK_CODES.test(code)) return code
    }
  }
  return null
}

/** The error for the user where `error` came from the network; else itself. */
export function explainNetworkError(error: unknown, url: string): unknown {
  if (error instanceof TransientError) return new CliError(EXIT.network, 'network', `${error.message}. Run the same command again to go on.`, { cause: error })
  const isFetchFailure = error instanceof TypeError && error.message === 'fetch failed'
  if (!isNetworkError(error) && !isFetchFailure) return error
  const reason = networkCode(error as Error) ?? ((error as Error).cause as Error | undefined)?.message ?? 'no reason given'
  const { origin } = new URL(url)
  return new CliError(EXIT.network, 'network', `${origin} cannot be reached (${reason}). Is the registry running, and is the address right? It comes from --registry, PORTLLM_REGISTRY or \`portllm login\`.`, { cause: error })
}
