const UNITS = ['B', 'kB', 'MB', 'GB', 'TB']

/** A size in decimal units, as storage is sold: 1500 → `1.5 kB`. */
export function formatBytes(bytes: number): string {
  let unit = 0
  let value = bytes
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${UNITS[unit]}`
}

export function formatDate(date: string | Date | null): string {
  return date === null ? '' : new Date(date).toISOString().slice(0, 16).replace('T', ' ')
}

export function formatNumber(value: number): string {
  return value.toLocaleString('en-US')
}
