import { createHmac, timingSafeEqual } from 'node:crypto'
import type { ByteRange } from './blob-store.ts'
import { SIGNED_REQUEST_SECONDS } from './blob-store.ts'
import type { Clock } from './clock.ts'

/** What a signed URL fixes besides method, key and expiry. */
export interface BlobConstraints {
  size?: number
  sha256?: string
  part?: { number: number; offset: number; objectSize: number }
  range?: ByteRange
}

export interface BlobSignature {
  sign(method: 'GET' | 'PUT', key: string, constraints: BlobConstraints): string
  /** Null: the URL is not one that `sign` made, or has expired. */
  verify(method: string, key: string, query: URLSearchParams): BlobConstraints | null
}

/** Signed URLs of the local blob store: HMAC-SHA256 over method, key, expiry and constraints. */
export function signBlobUrl({ publicUrl, secret, clock }: { publicUrl: string; secret: Uint8Array; clock: Clock }): BlobSignature {
  function mac(method: string, key: string, query: string): Buffer {
    return createHmac('sha256', secret).update(`${method}\n${key}\n${query}`).digest()
  }
  return {
    sign(method, key, constraints) {
      const expires = Math.floor(clock.now().getTime() / 1000) + SIGNED_REQUEST_SECONDS
      const query = formatQuery(expires, constraints)
      return `${publicUrl}/blobs/${key}?${query}&signature=${mac(method, key, query).toString('base64url')}`
    },
    verify(method, key, query) {
      const parsed = parseQuery(query)
      if (parsed === null) return null
      const given = Buffer.from(query.get('signature') ?? '', 'base64url')
      const right = mac(method, key, formatQuery(parsed.expires, parsed.constraints))
      if (given.length !== right.length || !timingSafeEqual(given, right)) return null
      return parsed.expires * 1000 > clock.now().getTime() ? parsed.constraints : null
    },
  }
}

function formatQuery(expires: number, { size, sha256, part, range }: BlobConstraints): string {
  const query = new URLSearchParams({ expires: String(expires) })
  if (size !== undefined) query.set('size', String(size))
  if (sha256 !== undefined) query.set('sha256', sha256)
  if (part !== undefined) query.set('part', `${part.number}-${part.offset}-${part.objectSize}`)
  if (range !== undefined) query.set('range', `${range.offset}-${range.length}`)
  return query.toString()
}

function parseQuery(query: URLSearchParams): { expires: number; constraints: BlobConstraints } | null {
  const numbers = (name: string, count: number) => {
    const text = query.get(name)
    if (text === null) return undefined
    const parts = text.split('-').map(Number)
    return parts.length === count && parts.every((part) => Number.isSafeInteger(part) && part >= 0) ? parts : null
  }
  const [expires, size, part, range] = [numbers('expires', 1), numbers('size', 1), numbers('part', 3), numbers('range', 2)]
  if (!expires || size === null || part === null || range === null) return null
  return {
    expires: expires[0]!,
    constraints: {
      ...(size && { size: size[0]! }),
      ...(query.has('sha256') && { sha256: query.get('sha256')! }),
      ...(part && { part: { number: part[0]!, offset: part[1]!, objectSize: part[2]! } }),
      ...(range && { range: { offset: range[0]!, length: range[1]! } }),
    },
  }
}
