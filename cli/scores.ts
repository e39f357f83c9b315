/** A score with its standard error: `0.750 ± 0.020`. */
export function formatScore({ value, stderr }: { value: number; stderr: number | null }): string {
  const digits = Math.abs(value) < 100 ? 3 : 1
  return stderr === null ? value.toFixed(digits) : `${value.toFixed(digits)} ± ${stderr.toFixed(digits)}`
}
