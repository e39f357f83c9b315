import { open, readFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'

const JOURNAL_FILE = '.portllm-get'
const FORMAT = 'portllm.get/1'

/** Which bytes of a partial folder are there: one line for each range, appended once it is written. */
export interface DownloadJournal {
  has(file: string, start: number, end: number): boolean
  add(file: string, start: number, end: number): Promise<void>
  /** The bytes of this range are wrong: they count as missing from now on. */
  drop(file: string, start: number, end: number): Promise<void>
  close(): Promise<void>
}

/** The journal's file name in the partial folder; it is removed before the folder is moved into place. */
export const JOURNAL_NAME = JOURNAL_FILE

/**
 * Opens the journal of a partial folder. One that was begun for something else, or cannot be read, is null: nothing
 * of such a folder can be used.
 */
export async function openJournal(partial: string, identity: string): Promise<DownloadJournal | null> {
  const path = join(partial, JOURNAL_FILE)
  const text = await readFile(path, 'utf8').catch(() => '')
  const heading = JSON.stringify({ format: FORMAT, identity })
  const lines = text.split('\n')
  if (text !== '' && lines[0] !== heading) return null
  const ranges = new Set<string>()
  // A line that was cut off by a crash has no line end, and is the last one.
  for (const line of lines.slice(1, -1)) {
    if (line.startsWith('+')) ranges.add(line.slice(1))
    else ranges.delete(line.slice(1))
  }
  const file = await open(path, 'a')
  if (text === '') await file.appendFile(`${heading}\n`)
  else if (!text.endsWith('\n')) await file.appendFile('\n')
  return journal(file, ranges)
}

function journal(file: FileHandle, ranges: Set<string>): DownloadJournal {
  return {
    has: (path, start, end) => ranges.has(key(path, start, end)),
    async add(path, start, end) {
      ranges.add(key(path, start, end))
      await file.appendFile(`+${key(path, start, end)}\n`)
    },
    async drop(path, start, end) {
      ranges.delete(key(path, start, end))
      await file.appendFile(`-${key(path, start, end)}\n`)
    },
    close: () => file.close(),
  }
}

function key(path: string, start: number, end: number): string {
  return `${start} ${end} ${path}`
}
