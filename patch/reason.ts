import type { Reason, ReasonCode } from './resolution.ts'

/** What a reason may name beside its message. */
export type ReasonDetails = Partial<Pick<Reason, 'remedy' | 'tensor' | 'expected' | 'found'>>

/** Reasons of one code that are listed one by one; the rest is counted. */
export const LISTED_REASONS = 20

export function refusal(code: ReasonCode, message: string, details: ReasonDetails = {}): Reason {
  return { code, severity: 'refusal', message, ...details }
}

export function warning(code: ReasonCode, message: string, details: ReasonDetails = {}): Reason {
  return { code, severity: 'warning', message, ...details }
}

export function info(code: ReasonCode, message: string, details: ReasonDetails = {}): Reason {
  return { code, severity: 'info', message, ...details }
}

/** At most LISTED_REASONS of each code, then one that counts the others, so that an answer stays readable. */
export function limitReasons(reasons: readonly Reason[]): Reason[] {
  const counts = new Map<string, number>()
  const listed = reasons.filter(({ code, severity }) => {
    const key = `${severity} ${code}`
    const seen = (counts.get(key) ?? 0) + 1
    counts.set(key, seen)
    return seen <= LISTED_REASONS
  })
  for (const [key, total] of counts) {
    const [severity, code] = key.split(' ') as [Reason['severity'], ReasonCode]
    if (total > LISTED_REASONS) listed.push({ code, severity, message: `${total - LISTED_REASONS} more like the ${LISTED_REASONS} listed (${code}).` })
  }
  return listed
}

export function describeShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`
}
