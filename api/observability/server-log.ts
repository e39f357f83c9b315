import { destination, pino, type DestinationStream, type Logger } from 'pino'
import { secretsOf, type ServerConfig } from '../config.ts'
import { describeError } from '../ports/log.ts'
import { createRedactor } from '../redaction.ts'

/** The server's log: JSON lines on standard error, or for people to read where that is a terminal. No secret gets through. */
export async function openServerLog(config: ServerConfig, stream?: DestinationStream): Promise<Logger> {
  return pino(
    {
      level: config.logLevel,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError },
      hooks: { streamWrite: createRedactor(secretsOf(config)) },
    },
    stream ?? (await standardError()),
  )
}

/** Synchronous: what was logged before a crash is there. */
async function standardError(): Promise<DestinationStream> {
  if (!process.stderr.isTTY) return destination({ dest: 2, sync: true })
  const { default: pretty } = await import('pino-pretty')
  return pretty({ destination: 2, sync: true, singleLine: true })
}
