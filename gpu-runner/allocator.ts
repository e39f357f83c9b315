import koffi from 'koffi'

/** Of glibc's malloc.h. */
const M_TRIM_THRESHOLD = -1
const M_MMAP_THRESHOLD = -3
const M_ARENA_MAX = -8
const LARGE_BYTES = 128 * 1024

const isGlibc = hasGlibc()

/**
 * Has glibc's allocator give large buffers back to the system when they are freed, which it stops doing after the first
 * such buffer by default, and share its arenas among threads: 30 MB of resident memory less in the embedded server
 * (docs/decisions/0003), and 50 to 120 in a merge into a 7B model, whose packed factors come and go by the megabyte.
 * Other C libraries have neither the habit nor the switch.
 */
export function tameAllocator(): void {
  if (!isGlibc) return
  const mallopt = koffi.load('libc.so.6').func('int mallopt(int, int)') as (option: number, value: number) => number
  for (const [option, value] of [[M_TRIM_THRESHOLD, LARGE_BYTES], [M_MMAP_THRESHOLD, LARGE_BYTES], [M_ARENA_MAX, 1]] as const) mallopt(option, value)
}

/** Gives back to the system what is free between what is not: small blocks are there by the thousand once a large text was read. */
export function trimAllocator(): void {
  if (!isGlibc) return
  trim ??= koffi.load('libc.so.6').func('int malloc_trim(size_t)') as (pad: number) => number
  trim(0)
}
let trim: ((pad: number) => number) | undefined

function hasGlibc(): boolean {
  if (process.platform !== 'linux') return false
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } }
  return header.glibcVersionRuntime !== undefined
}
