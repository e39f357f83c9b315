/** Exit codes of `portllm`; also listed by `portllm --help`. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  incompatible: 3,
  notFound: 4,
  conflict: 5,
  authentication: 6,
  network: 7,
  damaged: 8,
  diskFull: 9,
  interrupted: 130,
  terminated: 143,
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

export const EXIT_HELP = `Exit codes:
  0  done
  1  it failed (the message says why)
  2  wrong usage: an option, a name or a reference
  3  the patch is incompatible with the target
  4  not found, or not visible to you
  5  conflict: the version exists already, or the output folder is not empty
  6  not logged in, or not allowed
  7  the registry cannot be reached
  8  bytes do not have the digest that they should have
  9  the disk is full, here or at the registry
  130, 143  interrupted; run the same command again to resume`

/** An error whose message is for the user: what was wrong, where, and what to do. */
export class CliError extends Error {
  readonly exit: ExitCode
  /** Code of the API, or the command line's own, for `--json`. */
  readonly code: string
  readonly details: Readonly<Record<string, unknown>> | undefined

  constructor(exit: ExitCode, code: string, message: string, options: { details?: Readonly<Record<string, unknown>>; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.name = 'CliError'
    this.exit = exit
    this.code = code
    this.details = options.details
  }
}

export function usageError(message: string): CliError {
  return new CliError(EXIT.usage, 'usage', message)
}

const DISK_FULL_CODES: ReadonlySet<unknown> = new Set(['ENOSPC', 'EDQUOT'])

/** What any thrown value means to the user. Node's own file errors already name the path. */
export function explainError(error: unknown): CliError {
  if (error instanceof CliError) return error
  if (!(error instanceof Error)) return new CliError(EXIT.failure, 'internal', String(error))
  const code = 'code' in error ? error.code : undefined
  const path = 'path' in error && typeof error.path === 'string' ? ` (${error.path})` : ''
  if (DISK_FULL_CODES.has(code)) {
    return new CliError(EXIT.diskFull, 'disk_full', `The disk is full${path}. Free some space and run the same command again.`, { cause: error })
  }
  if (USAGE_ERRORS.has(error.name)) return new CliError(EXIT.usage, 'usage', error.message, { cause: error })
  if (error.name === 'MergePlanError') return new CliError(EXIT.incompatible, 'incompatible', error.message, { cause: error, details: { reasons: [{ code, severity: 'refusal', message: error.message }] } })
  if (FILE_ERRORS.has(error.name)) return new CliError(EXIT.failure, 'invalid_file', error.message, { cause: error })
  if (code === 'ENOENT') return new CliError(EXIT.notFound, 'not_found', `There is no such file or folder${path}.`, { cause: error })
  if (code === 'EACCES' || code === 'EPERM') return new CliError(EXIT.failure, 'not_permitted', `This file or folder may not be used${path}: ${error.message}`, { cause: error })
  return new CliError(EXIT.failure, typeof code === 'string' ? code : 'failure', error.message, { cause: error })
}

/** Names of the errors of patch/ that a wrong argument causes, and of those that a wrong file causes. */
const USAGE_ERRORS: ReadonlySet<string> = new Set(['ReferenceError', 'DerivationError'])
const FILE_ERRORS: ReadonlySet<string> = new Set(['SafetensorsError', 'AdapterError', 'FactsError', 'LayoutError', 'JsonEditError', 'CoreError'])
