import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { knownMigrations } from '../../../db/migrate.ts'
import { digestFile } from './files.ts'
import { digestOfExport, EXPORT_FORMAT, ExportManifest, MANIFEST_FILE, STAGED_FILE, tableFile, TransferError } from './format.ts'
import { TABLES } from './tables.ts'

/** The manifest of an export that is whole, but for the blobs, and of the schema of this version. Throws TransferError. */
export async function readExport(folder: string): Promise<ExportManifest> {
  const manifest = parseManifest(folder, await readText(folder))
  await checkSchema(manifest)
  const wanted = [...TABLES.map(({ name }) => tableFile(name)), STAGED_FILE]
  const named = manifest.contents.map(({ file }) => file)
  if (named.join() !== wanted.join()) throw new TransferError(`The export in ${folder} holds ${named.join(', ')}; an export of this schema holds ${wanted.join(', ')}.`)
  if (manifest.digest !== digestOfExport(manifest)) throw new TransferError(`${MANIFEST_FILE} in ${folder} was changed after it was written: its digest is of something else.`)
  for (const { file, bytes, sha256 } of manifest.contents) {
    const found = await digestFile(join(folder, file))
    if (found === null) throw new TransferError(`The export in ${folder} lacks ${file}.`)
    if (found.size !== bytes || found.sha256 !== sha256) throw new TransferError(`${file} in ${folder} is damaged: it has ${found.size} bytes and the SHA-256 ${found.sha256}, not ${bytes} and ${sha256}.`)
  }
  return manifest
}

async function readText(folder: string): Promise<string> {
  return readFile(join(folder, MANIFEST_FILE), 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new TransferError(error.code === 'ENOENT' ? `There is no export in ${folder}: it has no ${MANIFEST_FILE}, which an export gets at its end.` : `${MANIFEST_FILE} cannot be read: ${error.message}`)
  })
}

function parseManifest(folder: string, text: string): ExportManifest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new TransferError(`${MANIFEST_FILE} in ${folder} is no JSON: ${(error as Error).message}`)
  }
  const format = (value as { format?: unknown } | null)?.format
  if (format !== EXPORT_FORMAT) throw new TransferError(`The export in ${folder} has the format ${JSON.stringify(format)}; this version reads ${EXPORT_FORMAT}. Use the version of PortLLM that wrote it, or a newer one.`)
  const parsed = ExportManifest.safeParse(value)
  if (!parsed.success) throw new TransferError(`${MANIFEST_FILE} in ${folder} is wrong: ${parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`)
  return parsed.data
}

async function checkSchema({ schema, version }: ExportManifest): Promise<void> {
  const known = await knownMigrations()
  if (schema === known.at(-1)) return
  const wrote = `The export is of the schema ${schema} (PortLLM ${version}), this version has ${known.at(-1)}`
  if (known.includes(schema)) throw new TransferError(`${wrote}. Import it with that version; the server of this one then brings the database to its schema.`)
  throw new TransferError(`${wrote}, and does not know the other. Import it with the version that wrote it, or a newer one.`)
}
