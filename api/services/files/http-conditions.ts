import type { ByteRange } from '../../ports/blob-store.ts'
import { parseRange } from './http-range.ts'

/** The headers that decide about an answer; undefined where the request has none. */
export interface ConditionalHeaders {
  readonly ifMatch: string | undefined
  readonly ifNoneMatch: string | undefined
  readonly ifRange: string | undefined
  readonly range: string | undefined
}

export type FileAnswer =
  | { readonly status: 200 | 304 | 412 | 416 }
  | { readonly status: 206; readonly range: ByteRange }

interface EntityTag { readonly weak: boolean; readonly value: string }

/**
 * The answer to GET or HEAD of a file that exists, in the order of RFC 9110 §13.2.2. `etag` is without quotes, strong,
 * and the file's only validator: it has no Last-Modified, so If-Modified-Since and If-Unmodified-Since are ignored
 * (§13.1.3, §13.1.4) and a date in If-Range never matches. Range counts for GET only (§14.2).
 */
export function answerFileRequest({ method, headers, etag, size }: { method: string; headers: ConditionalHeaders; etag: string; size: number }): FileAnswer {
  if (headers.ifMatch !== undefined && !matches(headers.ifMatch, etag, 'strong')) return { status: 412 }
  if (headers.ifNoneMatch !== undefined && matches(headers.ifNoneMatch, etag, 'weak')) return { status: 304 }
  if (method !== 'GET' || headers.range === undefined) return { status: 200 }
  if (headers.ifRange !== undefined && !isStrongTag(headers.ifRange, etag)) return { status: 200 }
  const answer = parseRange(headers.range, size)
  if (answer.kind === 'unsatisfiable') return { status: 416 }
  return answer.kind === 'part' ? { status: 206, range: answer.range } : { status: 200 }
}

/** `*`, or a list that holds the tag under the comparison (§8.8.3.2). What is not a list of tags matches nothing. */
function matches(field: string, etag: string, comparison: 'strong' | 'weak'): boolean {
  if (field.trim() === '*') return true
  return parseEntityTags(field).some((tag) => tag.value === etag && (comparison === 'weak' || !tag.weak))
}

function isStrongTag(field: string, etag: string): boolean {
  return field.trim() === `"${etag}"`
}

/** The tags of a comma-separated list; commas may stand inside a tag. Empty where the field is malformed. */
function parseEntityTags(field: string): EntityTag[] {
  const tags: EntityTag[] = []
  const element = /[ \t]*(?:(W\/)?"([\x21\x23-\x7e\x80-\uffff]*)")?[ \t]*(,|$)/y
  while (element.lastIndex < field.length) {
    const match = element.exec(field)
    if (match === null) return []
    if (match[2] !== undefined) tags.push({ weak: match[1] !== undefined, value: match[2] })
  }
  return tags
}
