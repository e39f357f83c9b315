import { InvalidArgumentError } from 'commander'

/** A whole number in a range, for an option of commander. */
export function integerOption(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < min || value > max) throw new InvalidArgumentError(`give a whole number from ${min} to ${max}.`)
    return value
  }
}

/** For an option that may be given several times. */
export function collectOption(value: string, earlier: readonly string[] = []): string[] {
  return [...earlier, value]
}
