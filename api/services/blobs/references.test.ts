import { getTableColumns, getTableName, is } from 'drizzle-orm'
import { PgTable } from 'drizzle-orm/pg-core'
import { expect, it } from 'vitest'
import * as schema from '../../../db/schema.ts'
import { BLOB_REFERENCES } from './references.ts'

/** Columns that could hold the digest of a blob, and keep none alive: what they hold is no blob's, or a reference says it too. */
const NO_REFERENCE: Readonly<Record<string, string>> = {
  analyses: 'result',
  audit: 'request_id action subject before after',
  blobs: 'sha256',
  // The digest is of bytes that are computed where there is no blob.
  changed_tensors: 'derivation_id name digest',
  dataset_versions: 'version digest manifest rejection',
  datasets: 'name description',
  derivation_patches: 'derivation_id',
  derivations: 'id recipe manifest receipt storage_reason',
  dist_tags: 'tag',
  evaluations: 'identity derivation_id spec result',
  // The etag of an uploaded file is its blob's digest; its extents refer to that.
  files: 'derivation_id path etag',
  jobs: 'derivation_id progress failure',
  model_versions: 'version origin digest manifest parent_kind rejection',
  models: 'name description',
  organizations: 'name display_name',
  patch_marks: 'yank_reason deprecation',
  patch_versions: 'version digest manifest target_range publish_tag rejection',
  patches: 'name description readme',
  settings: 'key value',
  tokens: 'name sha256 scopes',
  trainings: 'spec record',
  // Of a held file, sha256 counts as one (references.ts).
  upload_files: 'path sha256',
  users: 'name',
}

it('garbage collection knows every column that refers to a blob', () => {
  expect(BLOB_REFERENCES.map((column) => `${getTableName(column.table)}.${column.name}`).sort()).toEqual(['changed_tensors.blob', 'extents.blob'])
})

it('every column that could hold the digest of a blob is a reference, or is known to be none: decide, for a new one', () => {
  const tables = Object.values(schema).filter((value) => is(value, PgTable)) as PgTable[]
  const open = tables.map((table) => {
    const texts = Object.values(getTableColumns(table)).filter(({ dataType }) => dataType === 'string' || dataType === 'json' || dataType === 'array')
    const names = texts.filter((column) => !['PgUUID', 'PgEnumColumn'].includes(column.columnType) && !BLOB_REFERENCES.includes(column)).map(({ name }) => name)
    return [getTableName(table), names.join(' ')] as const
  })
  expect(Object.fromEntries(open.filter(([, names]) => names !== ''))).toEqual(NO_REFERENCE)
})
