import type { S3Client } from '@aws-sdk/client-s3'
import { SignatureV4 } from '@smithy/signature-v4'
import { SIGNED_REQUEST_SECONDS, type SignedRequest } from './blob-store.ts'
import type { Clock } from './clock.ts'
import type { S3Settings } from './s3-client.ts'

export interface RequestToSign {
  method: SignedRequest['method']
  key: string
  /** All are signed: the store refuses a request that has others. */
  headers?: Record<string, string>
  query?: Record<string, string>
  /** Signed too, but said by every client of its own accord; `fetch` lets nobody set it. */
  size?: number
  /** Hexadecimal: of the one body that the store takes. */
  sha256?: string
}

export type S3Signing = (request: RequestToSign) => Promise<SignedRequest>

/** Their documentation pins a body by its checksum header; others, like Ceph's gateway, only by the hash that is signed. */
const KNOWS_CHECKSUMS = /(^|\.)(amazonaws\.com(\.cn)?|r2\.cloudflarestorage\.com)$/

/**
 * Signed URLs of a store. Not by the SDK's presigner, which signs no hash of a body: where it is known, the store itself
 * has to refuse other bytes.
 */
export function signS3Urls({ client, settings, clock }: { client: S3Client; settings: S3Settings; clock: Clock }): S3Signing {
  const { credentials, region, sha256: Sha256 } = client.config
  const signer = new SignatureV4({ service: 's3', credentials, region, sha256: Sha256, uriEscapePath: false, applyChecksum: false })
  const Endpoint = settings.publicEndpoint ?? settings.endpoint
  const { url: base } = client.config.endpointProvider({
    Bucket: settings.bucket, Region: settings.region, ForcePathStyle: settings.pathStyle, ...(Endpoint !== undefined && { Endpoint }),
  })
  const knowsChecksums = settings.checksums ?? KNOWS_CHECKSUMS.test(base.hostname)

  return async ({ method, key, headers = {}, query = {}, size, sha256 }) => {
    const isHashed = sha256 !== undefined && !knowsChecksums
    const isChecked = sha256 !== undefined && knowsChecksums
    const sent = { ...headers, ...(isHashed && { 'x-amz-content-sha256': sha256 }), ...(isChecked && { 'x-amz-checksum-sha256': base64(sha256) }) }
    const unsent = { host: base.host, ...(!isHashed && { 'X-Amz-Content-Sha256': 'UNSIGNED-PAYLOAD' }), ...(size !== undefined && { 'content-length': String(size) }) }
    const signed = await signer.presign(
      {
        method,
        protocol: base.protocol,
        hostname: base.hostname,
        ...(base.port !== '' && { port: Number(base.port) }),
        path: `${base.pathname.replace(/\/$/, '')}/${key}`,
        query: { ...query },
        headers: { ...unsent, ...sent },
      },
      { expiresIn: SIGNED_REQUEST_SECONDS, signingDate: clock.now(), unhoistableHeaders: new Set(Object.keys(sent)) },
    )
    const search = new URLSearchParams(Object.entries(signed.query ?? {}).map(([name, value]): [string, string] => [name, String(value)]))
    return { method, url: `${base.origin}${signed.path}?${search}`, headers: sent }
  }
}

function base64(hex: string): string {
  return btoa(hex.replaceAll(/../g, (pair) => String.fromCharCode(parseInt(pair, 16))))
}
