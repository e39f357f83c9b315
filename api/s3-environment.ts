import { z } from 'zod'
import type { S3Settings } from './ports/s3-client.ts'

const httpUrl = z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).transform((text) => text.replace(/\/+$/, ''))

export const S3_VARIABLES = {
  PORTLLM_S3_BUCKET: z.string().regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, 'is no name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens').optional(),
  PORTLLM_S3_ENDPOINT: httpUrl.optional(),
  PORTLLM_S3_PUBLIC_ENDPOINT: httpUrl.optional(),
  PORTLLM_S3_REGION: z.string().optional(),
  PORTLLM_S3_ACCESS_KEY_ID: z.string().optional(),
  PORTLLM_S3_SECRET_ACCESS_KEY: z.string().optional(),
  PORTLLM_S3_PATH_STYLE: z.stringbool({ error: 'must be true or false' }).optional(),
  PORTLLM_S3_CHECKSUMS: z.stringbool({ error: 'must be true or false' }).optional(),
}

const Variables = z.preprocess(withoutEmpty, z.object(S3_VARIABLES))

type Variables = z.output<typeof Variables>

/**
 * The S3 of the environment, or undefined without PORTLLM_S3_BUCKET. The region may be left out where an endpoint is named,
 * the keys where the machine has a role; paths rather than host names say the bucket at any endpoint but AWS's own.
 */
export const S3Environment = Variables.superRefine(check).transform((variables): S3Settings | undefined => {
  const endpoint = variables.PORTLLM_S3_ENDPOINT
  return variables.PORTLLM_S3_BUCKET === undefined ? undefined : {
    bucket: variables.PORTLLM_S3_BUCKET,
    endpoint,
    publicEndpoint: variables.PORTLLM_S3_PUBLIC_ENDPOINT,
    region: variables.PORTLLM_S3_REGION ?? 'us-east-1',
    accessKeyId: variables.PORTLLM_S3_ACCESS_KEY_ID,
    secretAccessKey: variables.PORTLLM_S3_SECRET_ACCESS_KEY,
    pathStyle: variables.PORTLLM_S3_PATH_STYLE ?? endpoint !== undefined,
    checksums: variables.PORTLLM_S3_CHECKSUMS,
  }
})

function check(variables: Variables, { addIssue }: z.RefinementCtx<Variables>): void {
  const lacks = (name: keyof Variables, why: string) => addIssue({ code: 'custom', path: [name], message: `is missing: ${why}` })
  const others = (Object.keys(variables) as (keyof Variables)[]).filter((name) => variables[name] !== undefined)
  if (variables.PORTLLM_S3_BUCKET === undefined) {
    if (others.length > 0) lacks('PORTLLM_S3_BUCKET', `${others.join(', ')} ${others.length === 1 ? 'is' : 'are'} set, but no bucket to use`)
    return
  }
  if (variables.PORTLLM_S3_ENDPOINT === undefined && variables.PORTLLM_S3_REGION === undefined) lacks('PORTLLM_S3_REGION', "AWS's S3 needs it; another store needs PORTLLM_S3_ENDPOINT")
  if (variables.PORTLLM_S3_ACCESS_KEY_ID === undefined && variables.PORTLLM_S3_SECRET_ACCESS_KEY !== undefined) lacks('PORTLLM_S3_ACCESS_KEY_ID', 'the secret key of PORTLLM_S3_SECRET_ACCESS_KEY belongs to one')
  if (variables.PORTLLM_S3_ACCESS_KEY_ID !== undefined && variables.PORTLLM_S3_SECRET_ACCESS_KEY === undefined) lacks('PORTLLM_S3_SECRET_ACCESS_KEY', 'PORTLLM_S3_ACCESS_KEY_ID needs it')
}

/** Absent and empty are the same. */
function withoutEmpty(environment: unknown): unknown {
  return Object.fromEntries(Object.entries(environment as object).filter(([, value]) => value !== ''))
}
