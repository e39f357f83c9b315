import { createHash } from 'node:crypto'
import { z } from 'zod'
import { canonicalJson } from '../../../patch/derivation.ts'

/** What an export is called that this version writes and reads; another layout gets another name. */
export const EXPORT_FORMAT = 'portllm.export/1'

/** Written last: a folder without it is no export yet. */
export const MANIFEST_FILE = 'manifest.json'
/** In a folder whose export has not ended. */
export const UNFINISHED_FILE = 'unfinished'
/** What is staged for drafts: one `StagedLine` a line. */
export const STAGED_FILE = 'staged.jsonl'

/** One row of the database a line, as PostgreSQL's row_to_json writes it, in the order of the primary key. */
export function tableFile(table: string): string {
  return `tables/${table}.jsonl`
}

/** For the owner of the registry alone: hashes of tokens, signing keys and internal models are in it. */
export const FILE_MODE = 0o600
export const FOLDER_MODE = 0o700

const Content = z.strictObject({ file: z.string(), lines: z.int().min(0), bytes: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) })
const Objects = z.strictObject({ count: z.int().min(0), bytes: z.int().min(0) })

export const ExportManifest = z.strictObject({
  format: z.literal(EXPORT_FORMAT),
  /** Name of the last migration of the database's schema. */
  schema: z.string(),
  /** Version of PortLLM that wrote it. */
  version: z.string(),
  createdAt: z.iso.datetime(),
  /** Every file but the blobs and what is staged, whose names and digests these files hold. */
  contents: z.array(Content),
  blobs: Objects,
  staged: Objects,
  /** SHA-256 of what the export holds, whenever and by whichever version it was written: equal registries, equal digests. */
  digest: z.string(),
})
export type ExportManifest = z.infer<typeof ExportManifest>

/** Bytes that a draft has, at the key in the export and in the store. */
export const StagedLine = z.strictObject({ key: z.string().regex(/^uploads\/[0-9a-f-]{36}$/), size: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) })
export type StagedLine = z.infer<typeof StagedLine>

/** What import needs of a line of the table `blobs`. */
export const BlobLine = z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), size: z.int().min(0) })
export type BlobLine = z.infer<typeof BlobLine>

export function digestOfExport({ format, schema, contents }: Pick<ExportManifest, 'format' | 'schema' | 'contents'>): string {
  return createHash('sha256').update(canonicalJson({ format, schema, contents })).digest('hex')
}

/** What whoever exports or imports can put right, or must know. */
export class TransferError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'TransferError'
  }
}
