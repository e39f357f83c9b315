import type { MergeProfile } from '../gpu-runner/core/core.ts'
import { formatTable } from './format.ts'

/** Where the seconds of a local merge went. */
export interface LocalMergeProfile {
  /** Of the whole command, Node's start included. */
  readonly total: number
  /** Digests of the model's and the patches' files; those known from an earlier run are not computed again. */
  readonly hash: number
  /** From the first file opened for the merge to the last one renamed. */
  readonly merge: number
  /** Within the merge, at the same time as each other; of the threads together: read, kernel, write and copy. */
  readonly pack: number
  readonly read: number
  readonly kernel: number
  readonly write: number
  readonly copy: number
  readonly sync: number
}

export function mergeProfile(hashed: readonly { readonly hashSeconds: number }[], { seconds, factors, read, kernel, write, copy, sync }: MergeProfile): LocalMergeProfile {
  const hash = hashed.reduce((sum, { hashSeconds }) => sum + hashSeconds, 0)
  return { total: process.uptime(), hash, merge: seconds, pack: factors, read, kernel, write, copy, sync }
}

export function describeProfile(profile: LocalMergeProfile): string {
  const rows = ([
    ['total', 'the whole command, Node\'s start included'],
    ['hash', 'digests of files that are not known from an earlier run'],
    ['merge', 'writing the merged files; what follows runs within, side by side'],
    ['  pack', 'reading the factors and packing them for the kernel'],
    ['  read', 'reading the model, all threads together'],
    ['  kernel', 'computing, all threads together'],
    ['  write', 'writing changed tensors, all threads together'],
    ['  copy', 'copying what does not change, all threads together'],
    ['  sync', 'waiting for the disk, all files together'],
  ] as const).map(([name, meaning]) => [name, profile[name.trim() as keyof LocalMergeProfile].toFixed(3), meaning])
  return formatTable(['phase', 'seconds', ''], rows)
}
