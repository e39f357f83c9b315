import { ApiError } from '../errors.ts'

export interface PageInput { limit: number; cursor?: string | undefined }
export interface Page<T> { items: T[]; nextCursor: string | null }

/** An opaque cursor: the sort key of the last row of a page. */
export function encodeCursor(key: readonly string[]): string {
  const bytes = new TextEncoder().encode(JSON.stringify(key))
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}

/** The sort key in a cursor of `length` texts, or null without one. Throws `invalid_request` for what encodeCursor did not make. */
export function decodeCursor(cursor: string | undefined, length: number): string[] | null {
  if (cursor === undefined) return null
  try {
    const bytes = Uint8Array.from(atob(cursor.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0))
    const key: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    if (Array.isArray(key) && key.length === length && key.every((part) => typeof part === 'string' && !part.includes('\0'))) return key
  } catch {
    // Falls through: whatever is wrong with it, the answer is the same.
  }
  throw new ApiError('invalid_request', 'The cursor is not one of this registry. Begin again without it.')
}

/** A cursor of a time and an id. */
export function decodeTimeCursor(cursor: string | undefined): { at: Date; id: string } | null {
  const key = decodeCursor(cursor, 2)
  if (key === null) return null
  const at = new Date(key[0]!)
  if (Number.isNaN(at.getTime()) || !/^[0-9a-f-]{36}$/.test(key[1]!)) throw new ApiError('invalid_request', 'The cursor is not one of this registry. Begin again without it.')
  return { at, id: key[1]! }
}

/** Cuts `limit + 1` rows down to a page. */
export function toPage<R, T>(rows: readonly R[], limit: number, keyOf: (row: R) => readonly string[], map: (row: R) => T): Page<T> {
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  return { items: page.map(map), nextCursor: rows.length > limit && last !== undefined ? encodeCursor(keyOf(last)) : null }
}
