import type { Reason } from '../patch/resolution.ts'
import { printable } from './format.ts'

/** A reason in one line, with what can be done about it. */
export function describeReason({ message, expected, found, remedy }: Pick<Reason, 'message' | 'expected' | 'found' | 'remedy'>): string {
  const comparison = expected !== undefined && found !== undefined ? ` (expected ${expected}, found ${found})` : ''
  return printable(`${message}${comparison}${remedy === undefined ? '' : ` ${remedy}`}`)
}
