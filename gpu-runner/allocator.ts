import koffi from 'koffi'

/** Of glibc's malloc.h. */
const M_TRIM_THRESHOLD = -1
const M_MMAP_THRESHOLD = -3
const M_ARENA_MAX = -8
const LARGE_BYTES = 128 * 1024

/**
 * Has glibc's allocator give large buffers back to the system when they are freed, which it stops doing after the first
 * such buffer by default, and share its arenas among threads: 30 MB of resident memory less in the embedded server
 * (docs/decisions/0003). Other C libraries have neither the habit nor the switch.
 */
export function tameAllocator(): void {
  if (!isGlibc()) return
  const mallopt = koffi.load('libc.so.6').func('int mallopt(int, int)') as (option: number, value: number) => number
  for (const [option, value] of [[M_TRIM_THRESHOLD, LARGE_BYTES], [M_MMAP_THRESHOLD, LARGE_BYTES], [M_ARENA_MAX, 1]] as const) mallopt(option, value)
}

function isGlibc(): boolean {
  if (process.platform !== 'linux') return false
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } }
  return header.glibcVersionRuntime !== undefined
}
