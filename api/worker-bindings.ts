import { z } from 'zod'
import type { S3Settings } from './ports/s3-client.ts'
import { S3Environment } from './s3-environment.ts'

interface RateLimit { limit(asked: { key: string }): Promise<{ success: boolean }> }

/** Cloudflare's own way to a database: a URL that only this Worker can use. */
const Hyperdrive = z.object({ connectionString: z.string() }, 'must be a Hyperdrive binding')
const isRateLimit = (value: unknown): value is RateLimit => typeof (value as Partial<RateLimit> | undefined)?.limit === 'function'

/** What infra/wrangler.jsonc binds, beside what S3Environment reads; secrets are bound by `wrangler secret put`. */
const Bindings = z.object({
  /** Without Hyperdrive's cache: whatever a revocation or a publish must reach at once. */
  DATABASE: Hyperdrive,
  /** With it: what never changes (docs/decisions/0007). */
  DATABASE_CACHED: Hyperdrive,
  RATE_LIMIT: z.custom<RateLimit>(isRateLimit, 'must be a rate limit binding'),
  PORTLLM_PUBLIC_URL: z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).transform((url) => url.replace(/\/+$/, '')),
})

export type WorkerBindings = z.output<typeof Bindings> & { readonly s3: S3Settings }

const read = new WeakMap<object, WorkerBindings>()

/** The bindings, read once for an isolate. Throws an error that names each wrong one; values are never in it. */
export function readBindings(env: object): WorkerBindings {
  const known = read.get(env)
  if (known !== undefined) return known
  const [bound, s3] = [Bindings.safeParse(env), S3Environment.safeParse(env)]
  const wrong = [...(bound.error?.issues ?? []), ...(s3.error?.issues ?? [])].map(({ path, message }) => `${path.join('.')} ${message}.`)
  if (s3.success && s3.data?.accessKeyId === undefined) wrong.push('PORTLLM_S3_BUCKET, PORTLLM_S3_ACCESS_KEY_ID and PORTLLM_S3_SECRET_ACCESS_KEY must be set: a Worker has no role of a machine.')
  if (wrong.length > 0) throw new Error(`Bindings of the Worker are wrong: ${wrong.join(' ')} See infra/wrangler.jsonc and docs/operations.md.`)
  const bindings = { ...bound.data!, s3: s3.data! }
  read.set(env, bindings)
  return bindings
}
