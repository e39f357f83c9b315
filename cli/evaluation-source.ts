import type { Plan, PlanFile, Registry } from './client.ts'
import type { FetchSource } from './get.ts'

/** A download that was interrupted goes on after the last whole piece. */
const PIECE_BYTES = 8 * 1024 * 1024

interface RecordedFile { readonly path: string; readonly size: number; readonly etag: string }

/** What a registry has recorded of an evaluation. The files come from the registry's own routes, with the caller's token. */
export function evaluationSource({ connection }: Registry, { id, files }: { readonly id: string; readonly files: readonly RecordedFile[] }): FetchSource {
  const plan: Plan = { files: files.map((file) => planFile(`${connection.registry}/v1/evaluations/${id}/files`, file)), expiresAt: new Date(8.64e15).toISOString() }
  return { identity: `evaluation:${id}`, files, tensors: [], derivation: null, lock: null, plan: () => Promise.resolve(plan) }
}

function planFile(base: string, { path, size, etag }: RecordedFile): PlanFile {
  const url = `${base}/${path.split('/').map(encodeURIComponent).join('/')}`
  const extents = Array.from({ length: Math.ceil(size / PIECE_BYTES) }, (_, index) => {
    const offset = index * PIECE_BYTES
    const length = Math.min(PIECE_BYTES, size - offset)
    return { blob: etag, offset, length, method: 'GET' as const, url, headers: { Range: `bytes=${offset}-${offset + length - 1}` } }
  })
  return { path, size, etag, extents }
}
