import { largest } from '../patch/largest.ts'

const UNITS = ['bytes', 'kB', 'MB', 'GB', 'TB'] as const

/** Bytes for people, in decimal units: `1.2 GB`. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 999.95 && unit < UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return unit === 0 ? `${bytes} ${bytes === 1 ? 'byte' : 'bytes'}` : `${value.toFixed(value < 9.995 ? 2 : 1)} ${UNITS[unit]}`
}

/** Columns padded to their widest cell; the first row is the heading. */
export function formatTable(heading: readonly string[], rows: readonly (readonly (string | null)[])[]): string {
  if (rows.length === 0) return 'Nothing found.'
  const all = [heading, ...rows].map((row) => row.map((cell) => printable(cell ?? '-')))
  const widths = heading.map((_, column) => largest(all.map((row) => row[column]!.length)))
  return all.map((row) => row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]!))).join('  ').trimEnd()).join('\n')
}

/** Lines of names and values, without those that have no value. */
export function formatFields(fields: readonly (readonly [string, string | number | null | undefined])[]): string {
  const shown = fields.filter((field) => field[1] !== null && field[1] !== undefined && field[1] !== '')
  const width = largest(shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${printable(String(value))}`).join('\n')
}

/** Text of strangers on one's terminal: control characters could move the cursor or rewrite the screen. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}]/gu, ' ')
}

export function plural(count: number, one: string, many: string = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}

/** How a registry keeps a merged model. */
export function describeStorage({ storage, storageReason, storedBytes }: { storage: string; storageReason: string; storedBytes: number }): string {
  return `${storage}, ${formatBytes(storedBytes)} kept for it. ${storageReason}`
}
