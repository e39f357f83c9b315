import { spawnSync } from 'node:child_process'
import { installDebianPackages } from '../tests/setup/debian-packages.ts'
import { run } from './timing.ts'

/** Milliseconds for one request after another over one connection. */
export interface Latency { readonly p50: number; readonly p99: number; readonly requests: number }

const UNITS: Readonly<Record<string, number>> = { us: 1e-3, ms: 1, s: 1e3 }

/** As wrk measures it: its own process in C takes little of the processors that the server needs. */
export async function latency(url: string, { token, seconds }: { token: string; seconds: number }): Promise<Latency> {
  const { stdout } = await run('wrk', ['-t', '1', '-c', '1', '-d', `${seconds}s`, '--latency', '--timeout', '60s', '-H', `Authorization: Bearer ${token}`, url])
  if (/Non-2xx/.test(stdout) || /Socket errors/.test(stdout)) throw new Error(`${url} did not only answer 200:\n${stdout}`)
  const at = (percent: number) => {
    const [, value, unit] = new RegExp(`^ +${percent}% +([\\d.]+)(us|ms|s) *$`, 'm').exec(stdout) ?? []
    if (value === undefined) throw new Error(`wrk said no ${percent}%:\n${stdout}`)
    return Number(value) * UNITS[unit!]!
  }
  return { p50: at(50), p99: at(99), requests: Number(/(\d+) requests in/.exec(stdout)?.[1]) }
}

/** wrk, from Debian where it is missing and this is root. */
export function requireWrk(): void {
  const missing = () => spawnSync('wrk', ['-v']).error !== undefined
  if (missing()) installDebianPackages('wrk')
  if (missing()) throw new Error('This bench needs wrk. Install it: apt-get install wrk')
}
