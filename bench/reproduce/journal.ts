import { appendFile, readFile, truncate } from 'node:fs/promises'
import type { StepKind } from './steps.ts'

/** What one step gave. */
export interface JournalRow {
  readonly key: string
  readonly id: string
  readonly kind: StepKind
  /** ISO 8601, of its end. */
  readonly at: string
  readonly seconds: number
  /** Load average of the machine over the minute before the step began. */
  readonly load: number
  readonly result: unknown
}

/** The results so far, one JSON object a line, by the step's key. Reading changes nothing; one process at a time may append. */
export interface Journal {
  readonly rows: ReadonlyMap<string, JournalRow>
  append(row: JournalRow): Promise<void>
}

export async function openJournal(path: string): Promise<Journal> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return ''
  })
  // A last line without its end was being written when the process was killed, or is being written by another one.
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  let isTorn = whole.length < text.length
  const rows = new Map(whole.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as JournalRow).map((row) => [row.key, row]))
  return {
    rows,
    async append(row) {
      if (isTorn) await truncate(path, Buffer.byteLength(whole))
      isTorn = false
      await appendFile(path, `${JSON.stringify(row)}\n`)
      rows.set(row.key, row)
    },
  }
}
