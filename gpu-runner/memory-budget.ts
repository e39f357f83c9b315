/** Shares a number of bytes among tasks; who does not fit waits, in the order of asking. */
export interface MemoryBudget {
  /**
   * Resolves when `bytes` are free, with the function that gives them back. A task that wants more than the whole
   * runs alone: it could never fit, and refusing it would help nobody.
   */
  take(bytes: number): Promise<() => void>
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
  return {
    take(bytes) {
      return new Promise((resolve) => {
        waiting.push({ bytes, start: () => resolve(giveBack) })
        startThoseThatFit()
      })
      function giveBack() {
        used -= bytes
        startThoseThatFit()
      }
    },
  }
}
