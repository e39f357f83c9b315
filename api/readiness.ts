import type { Log } from './ports/log.ts'

/** A part that does not answer for longer is taken for broken. */
const PART_TIMEOUT_MS = 2_000

export type Parts = Readonly<Record<string, () => Promise<unknown>>>

export interface ReadinessReport {
  readonly status: 'starting' | 'ready' | 'broken' | 'draining'
  /** Empty until the server has started. */
  readonly parts: Readonly<Record<string, 'ok' | 'failing'>>
}

export interface Readiness {
  /** The server has started; from now on it is as ready as these parts. */
  start(parts: Parts): void
  /** From now on it is not ready any more. */
  drain(): void
  check(): Promise<ReadinessReport>
}

/** Whether the server should get requests. Why a part fails goes to the log, not to whoever asks. */
export function createReadiness(log: Log, { timeoutMs = PART_TIMEOUT_MS } = {}): Readiness {
  let parts: Parts | null = null
  let isDraining = false

  async function checkPart([name, check]: [string, () => Promise<unknown>]): Promise<[string, 'ok' | 'failing']> {
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<never>((_, reject) => (timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)))
    try {
      await Promise.race([check(), timeout])
      return [name, 'ok']
    } catch (err) {
      log.warn({ part: name, err }, 'A part of the server fails')
      return [name, 'failing']
    } finally {
      clearTimeout(timer)
    }
  }

  return {
    start(started) {
      parts = started
    },
    drain() {
      isDraining = true
    },
    async check() {
      if (parts === null) return { status: isDraining ? 'draining' : 'starting', parts: {} }
      const checked = Object.fromEntries(await Promise.all(Object.entries(parts).map(checkPart)))
      const isWhole = Object.values(checked).every((state) => state === 'ok')
      return { status: isDraining ? 'draining' : isWhole ? 'ready' : 'broken', parts: checked }
    },
  }
}

export function isProbe({ url }: { url?: string | undefined }): boolean {
  return url === '/healthz' || url === '/readyz'
}

/** Answers `/healthz` (the process runs) and `/readyz` (it should get requests). */
export async function answerProbe(request: Request, readiness: Readiness): Promise<Response> {
  const headers = { 'Cache-Control': 'no-store' }
  if (request.url.endsWith('/healthz')) return Response.json({ status: 'ok' }, { headers })
  const report = await readiness.check()
  return Response.json(report, { status: report.status === 'ready' ? 200 : 503, headers })
}
