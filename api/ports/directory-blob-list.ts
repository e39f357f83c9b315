import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { KeyPrefix, StoredObject } from './blob-store.ts'

/** What the directory store keeps beside a staged object while its parts arrive. */
const UNJOINED = /\.(partial|parts)$/

/** The objects below `<root>/<prefix>`, one folder at a time. */
export async function* listFolder(root: string, prefix: KeyPrefix): AsyncGenerator<StoredObject> {
  yield* walk(root, prefix, prefix)
}

async function* walk(root: string, prefix: KeyPrefix, folder: string): AsyncGenerator<StoredObject> {
  const objects = new Map<string, { size: number; modified: number }>()
  const entries = await readdir(join(root, folder), { withFileTypes: true }).catch(ifGone([]))
  for (const entry of entries) {
    const key = `${folder}/${entry.name.replace(UNJOINED, '')}`
    if (entry.isDirectory() && !UNJOINED.test(entry.name)) {
      yield* walk(root, prefix, key)
      continue
    }
    const found = await stat(join(root, folder, entry.name)).catch(ifGone(null))
    if (found === null) continue
    const { size, modified } = objects.get(key) ?? { size: 0, modified: 0 }
    objects.set(key, { size: size + (entry.isDirectory() ? 0 : found.size), modified: Math.max(modified, found.mtimeMs) })
  }
  for (const [key, { size, modified }] of objects) yield { key, size, modifiedAt: new Date(modified) }
  // A crash leaves empty folders: told as objects, they can be discarded like those. Those of blobs are used again.
  if (entries.length === 0 && folder !== prefix && prefix !== 'blobs') {
    const found = await stat(join(root, folder)).catch(ifGone(null))
    if (found !== null) yield { key: folder, size: 0, modifiedAt: found.mtime }
  }
}

function ifGone<T>(instead: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT') return instead
    throw error
  }
}
