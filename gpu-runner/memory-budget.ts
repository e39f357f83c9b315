/** Shares a number of bytes among tasks; who does not fit waits, in the order of asking. */
export interface MemoryBudget {
  /**
   * Resolves when `bytes` are free, with the function that gives them back. A task that wants more than the whole
   * runs alone: it could never fit, and refusing it would help nobody.
   */
  take(bytes: number): Promise<() => void>
  /** The same at once, or null where they are not free now. */
  tryTake(bytes: number): (() => void) | null
}

export function memoryBudget(total: number): MemoryBudget {
  let used = 0
  const waiting: { bytes: number; start: () => void }[] = []
  const startThoseThatFit = () => {
    for (let next = waiting[0]; next && (used === 0 || used + next.bytes <= total); next = waiting[0]) {
      waiting.shift()
      used += next.bytes
      next.start()
    }
  }
  const giveBack = (bytes: number) => () => {
    used -= bytes
    startThoseThatFit()
  }
  return {
    take: (bytes) => new Promise((resolve) => {
      waiting.push({ bytes, start: () => resolve(giveBack(bytes)) })
      startThoseThatFit()
    }),
    tryTake(bytes) {
      if (waiting.length > 0 || used + bytes > total) return null
      used += bytes
      return giveBack(bytes)
    },
  }
}
