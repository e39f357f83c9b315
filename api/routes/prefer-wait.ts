/** What `Retry-After` says of work that is on its way. */
export const RETRY_AFTER_SECONDS = 1
const LONGEST_WAIT_SECONDS = 60

/** The seconds of `Prefer: wait=N` (RFC 7240), at most a minute; 0 without it. */
export function preferredWait(header: string | undefined): number {
  const match = /(?:^|[,;\s])wait=(\d{1,6})/i.exec(header ?? '')
  return match === null ? 0 : Math.min(Number(match[1]), LONGEST_WAIT_SECONDS)
}
