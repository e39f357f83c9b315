import { ReferenceError } from './reference.ts'

/** Limits of common file systems and of S3 keys, in UTF-8 bytes. */
const MAX_SEGMENT_BYTES = 255
const MAX_PATH_BYTES = 1024
/** Names that Windows keeps for devices, with or without an extension. */
const DEVICE = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)/i

/** Why `path` may not name a file of a published version, or null where it may. */
export function pathProblem(path: string): string | null {
  if (path === '' || !path.isWellFormed()) return 'it is empty or not valid Unicode'
  if (path.normalize('NFC') !== path) return 'it is not in Unicode normal form C'
  if (/[\p{Cc}\p{Cf}\u2028\u2029]/u.test(path)) return 'it holds a control or invisible character'
  if (/[\\:*?"<>|]/.test(path)) return 'it holds one of \\ : * ? " < > |'
  const encoder = new TextEncoder()
  if (encoder.encode(path).length > MAX_PATH_BYTES) return `it is longer than ${MAX_PATH_BYTES} bytes`
  for (const segment of path.split('/')) {
    if (segment === '') return 'it begins or ends with "/" or holds "//"'
    if (segment === '.' || segment === '..') return `it holds the segment "${segment}"`
    if (encoder.encode(segment).length > MAX_SEGMENT_BYTES) return `a segment is longer than ${MAX_SEGMENT_BYTES} bytes`
    if (/^ |[ .]$/.test(segment)) return 'a segment begins with a space or ends with a space or dot'
    if (DEVICE.test(segment)) return 'a segment is a device name on Windows'
  }
  return null
}

export function isSafePath(path: string): boolean {
  return pathProblem(path) === null
}

/** Throws ReferenceError unless all paths are safe, distinct even where case is ignored, and none is another's folder. */
export function checkPaths(paths: readonly string[]): void {
  const seen = new Map<string, string>()
  for (const path of paths) {
    const problem = pathProblem(path)
    if (problem !== null) throw new ReferenceError('bad-path', `The file path ${JSON.stringify(path.slice(0, 200))} is not allowed: ${problem}.`)
    const folded = path.toLowerCase()
    const other = seen.get(folded)
    if (other !== undefined) throw new ReferenceError('bad-path', `The file paths ${JSON.stringify(other)} and ${JSON.stringify(path)} are the same where case is ignored.`)
    seen.set(folded, path)
  }
  for (const [folded, path] of seen) {
    for (let slash = folded.indexOf('/'); slash > 0; slash = folded.indexOf('/', slash + 1)) {
      const other = seen.get(folded.slice(0, slash))
      if (other !== undefined) throw new ReferenceError('bad-path', `${JSON.stringify(other)} is both a file and the folder of ${JSON.stringify(path)}.`)
    }
  }
}
