/** The disk under a folder is full, or its quota is used up. */
export class DiskFullError extends Error {
  readonly folder: string
  constructor(folder: string, options?: ErrorOptions) {
    super(`the disk that holds ${folder} is full`, options)
    this.name = 'DiskFullError'
    this.folder = folder
  }
}

/** Whether the error, or what caused it, says that a disk or quota is full (Node's errno, PostgreSQL's 53100). */
export function isDiskFull(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code = 'code' in cause ? cause.code : undefined
    if (cause instanceof DiskFullError || code === 'ENOSPC' || code === 'EDQUOT' || code === '53100') return true
    if (/No space left on device/i.test(cause.message)) return true
  }
  return false
}
