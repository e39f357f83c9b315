import { InvalidArgumentError, Option, type Command } from 'commander'
import type { DerivationOptions } from '../patch/derivation.ts'
import { ABSOLUTE_OPTIONS, TIED_OPTIONS, type LayOptions } from '../patch/laying.ts'

/** A whole number in a range, for an option of commander. */
export function integerOption(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < min || value > max) throw new InvalidArgumentError(`give a whole number from ${min} to ${max}.`)
    return value
  }
}

/** A number in a range. */
export function numberOption(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text.trim() === '' || !(value >= min && value <= max)) throw new InvalidArgumentError(`give a number from ${min} to ${max}.`)
    return value
  }
}

/** Names with commas between. */
export function listOption(text: string): string[] {
  const names = text.split(',').map((name) => name.trim())
  if (names.includes('')) throw new InvalidArgumentError('give names with commas between.')
  return names
}

/** For an option that may be given several times. */
export function collectOption(value: string, earlier: readonly string[] = []): string[] {
  return [...earlier, value]
}

/** Adds --absolute and --tied: what whoever asks for a merge may choose. */
export function addLayOptions(command: Command): Command {
  return command
    .addOption(new Option('--absolute <how>', 'full values in a patch: add the difference to the base, or replace what the target has learned').choices(ABSOLUTE_OPTIONS))
    .addOption(new Option('--tied <how>', 'a patch that changes one end of tied embeddings: refuse it, or untie them in the merged model').choices(TIED_OPTIONS))
}

/** What was chosen otherwise than by default. */
export function chosenOptions({ absolute, tied }: Partial<LayOptions>): DerivationOptions {
  return { ...(absolute === 'replace' && { absolute }), ...(tied === 'untie' && { tied }) }
}
