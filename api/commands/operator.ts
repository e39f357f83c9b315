import { InvalidArgumentError, type Command } from 'commander'
import { readConfig, type ServerConfig } from '../config.ts'

/** Whoever operates a registry works on what the configuration names; the data folder can be told by an option. */
export interface OperatorOptions { data?: string; json?: true }

/** A command signs no URL that anybody would use. */
export const UNUSED_URL = 'http://localhost'

export function addOperatorCommand(program: Command, usage: string, description: string): Command {
  return program
    .command(usage)
    .description(description)
    .option('--data <folder>', 'folder of the embedded database, blobs and lock (default: ./portllm-data)')
    .option('--json', 'answer with one line of JSON')
}

export function readOperatorConfig({ data }: OperatorOptions): ServerConfig {
  return readConfig({ data }, process.env)
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 24 * 3600 }

/** `24h` → 86400: a number and s, m, h or d; 0 needs no unit. */
export function readDuration(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text) ?? (text === '0' ? ['0', '0', 's'] : [])
  if (number === undefined) throw new InvalidArgumentError('Write a number and s, m, h or d, such as 24h.')
  return Number(number) * SECONDS[unit!]!
}

/** `50M` → 50,000,000: a number, and k, M or G. */
export function readBytes(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)([kMG]?)$/.exec(text) ?? []
  if (number === undefined || Number(number) === 0) throw new InvalidArgumentError('Write a number above 0 and k, M or G, such as 50M.')
  return Number(number) * { '': 1, k: 1e3, M: 1e6, G: 1e9 }[unit!]!
}

/** Aborts at the first signal to end, and lets a second one end the process. */
export function interruption(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => controller.abort())
  return controller.signal
}

/** Tells on a terminal how far the work is, at most a few times a second. */
export function progressLine(text: () => string): { tell(): void; end(): void } {
  const { stderr } = process
  let told = 0
  return {
    tell() {
      if (!stderr.isTTY || Date.now() - told < 200) return
      told = Date.now()
      stderr.write(`\r\x1b[K${text()}`)
    },
    end: () => void (stderr.isTTY && stderr.write('\r\x1b[K')),
  }
}
