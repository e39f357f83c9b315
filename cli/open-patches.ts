import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import type { Allocate } from '../gpu-runner/core/core.ts'
import type { StoredBytes } from '../patch/merge-plan.ts'

/** The folders of patches and of their bases, whose files are opened when first read, and stay open. */
export interface OpenPatches {
  pathOf(stored: StoredBytes): string
  read<Stored extends StoredBytes>(stored: Stored, allocate: Allocate): Promise<{ readonly bytes: Uint8Array<ArrayBuffer>; readonly dtype: Stored['dtype'] }>
  close(): Promise<void>
}

/** `folders`: of each patch and of its base, in the order of the derivation. */
export function openPatches(folders: readonly { readonly patch: string; readonly base: string | null }[]): OpenPatches {
  const files = new Map<string, FileHandle>()
  const pathOf = ({ patch, of, file }: StoredBytes) => join(folders[patch]![of]!, file)
  return {
    pathOf,
    async read(stored, allocate) {
      const { offset, length, dtype } = stored
      const path = pathOf(stored)
      const handle = files.get(path) ?? (await open(path, 'r'))
      files.set(path, handle)
      const bytes = allocate(length)
      for (let done = 0; done < length; ) {
        const { bytesRead } = await handle.read(bytes, done, length - done, offset + done)
        if (bytesRead === 0) throw new Error(`${path} ends before byte ${offset + length}: it became shorter since it was first read`)
        done += bytesRead
      }
      return { bytes, dtype }
    },
    async close() {
      for (const file of files.values()) await file.close()
    },
  }
}
