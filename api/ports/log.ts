/** Where the registry says what went wrong. Fields hold no secrets; an error goes under `err`. */
export interface Log {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  /** The same log, with these fields in every line. */
  child(fields: object): Log
}

/** An error as it may be logged: of a failed query, its text without the values, which may be keys. */
export function describeError(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) }
  const { name, code, cause } = error as Error & { code?: unknown }
  const message = messageOf(error)
  return {
    type: name,
    message,
    ...(typeof code === 'string' && { code }),
    stack: (error.stack ?? '').replace(error.message, message),
    ...(cause !== undefined && { cause: describeError(cause) }),
  }
}

function messageOf(error: Error): string {
  return 'query' in error && typeof error.query === 'string' && 'params' in error ? `Failed query: ${error.query}` : error.message
}

/** JSON lines on the console: for deployments that have nothing else, such as Workers. */
export function createConsoleLog(bound: object = {}): Log {
  const at = (level: string) => (fields: object, message: string) => {
    const { err, ...rest } = { ...bound, ...fields } as Record<string, unknown>
    console.error(JSON.stringify({ level, ...rest, ...(err !== undefined && { err: describeError(err) }), msg: message }))
  }
  return { info: at('info'), warn: at('warn'), error: at('error'), child: (fields) => createConsoleLog({ ...bound, ...fields }) }
}
