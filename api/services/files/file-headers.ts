/** Types that a browser may show; everything else is bytes to be saved. */
const SHOWN_TYPES: Readonly<Record<string, string>> = {
  json: 'application/json',
  md: 'text/markdown; charset=utf-8',
  txt: 'text/plain; charset=utf-8',
}

/** Headers of every answer with or about a file that exists, 304 included. `etag` is without quotes. */
export function fileHeaders({ etag, caching }: { etag: string; caching: string }): Record<string, string> {
  return {
    ETag: `"${etag}"`,
    'Accept-Ranges': 'bytes',
    'Cache-Control': caching,
    'X-Content-Type-Options': 'nosniff',
    // What somebody uploaded must not run as a page of the registry.
    'Content-Security-Policy': 'sandbox',
  }
}

/** Headers of the bytes themselves. */
export function contentHeaders(path: string): Record<string, string> {
  const name = path.slice(path.lastIndexOf('/') + 1)
  const extension = /\.([a-z]+)$/i.exec(name)?.[1]?.toLowerCase() ?? ''
  const shown = Object.hasOwn(SHOWN_TYPES, extension) ? SHOWN_TYPES[extension] : undefined
  return {
    'Content-Type': shown ?? 'application/octet-stream',
    'Content-Disposition': `${shown === undefined ? 'attachment' : 'inline'}; filename*=UTF-8''${encodeExtValue(name)}`,
  }
}

/** RFC 8187: whatever is no attr-char is percent-encoded; that leaves nothing that could end the parameter. */
function encodeExtValue(name: string): string {
  return encodeURIComponent(name.toWellFormed()).replace(/['()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
}
