import type { Command } from 'commander'
import type { ServerConfig } from '../config.ts'
import { connectBlobs } from '../connect-blobs.ts'
import { withDatabase } from '../open-registry.ts'
import { formatBytes } from '../pages/format.ts'
import { scrub, type DamagedBlob, type ScrubReport, type ScrubRequest } from '../services/scrub/scrub.ts'
import { addOperatorCommand, interruption, progressLine, readBytes, readOperatorConfig, UNUSED_URL, type OperatorOptions } from './operator.ts'

/** Exit code of `scrub` where something is damaged. */
export const EXIT_DAMAGED = 5

interface ScrubOptions extends OperatorOptions { rate?: number; restart?: true }

export function addScrub(program: Command): void {
  addOperatorCommand(program, 'scrub', `reads every blob and compares it with its digest; changes nothing (exit code ${EXIT_DAMAGED} where one is damaged)`)
    .option('--rate <bytes>', 'read at most so much a second, such as 50M', readBytes)
    .option('--restart', 'begin with the first blob, also where an earlier scrub was interrupted')
    .addHelpText('after', `
It says which versions and merged models a damaged blob hits. Interrupted, it goes on from there the next time. With DATABASE_URL
the server may run; the embedded one must be stopped.`)
    .action(runScrub)
}

async function runScrub({ rate, restart, json, ...options }: ScrubOptions): Promise<void> {
  let at: Readonly<ScrubReport> | undefined
  const line = progressLine(() => `${at!.blobs} blobs, ${formatBytes(at!.bytes)}, ${at!.damaged.length} damaged`)
  const onProgress = (now: Readonly<ScrubReport>) => { at = now; line.tell() }
  const report = await scrubOf(readOperatorConfig(options), { restart, bytesPerSecond: rate, signal: interruption(), onProgress }).finally(line.end)
  console.log(json ? JSON.stringify(report) : [...report.damaged.map(describe), `${report.blobs} blobs, ${formatBytes(report.bytes)}: ${report.damaged.length === 0 ? 'all are whole' : `${report.damaged.length} damaged`}.`].join('\n'))
  if (report.damaged.length > 0) process.exitCode = EXIT_DAMAGED
}

/** Scrubs the registry of a configuration. */
export function scrubOf(config: ServerConfig, input: ScrubRequest): Promise<ScrubReport> {
  return withDatabase(config, async ({ db }) => {
    const { blobs } = await connectBlobs({ config, db, publicUrl: UNUSED_URL })
    return scrub({ ctx: { db, blobs }, input })
  })
}

function describe({ problem, message, dependents }: DamagedBlob): string {
  const { paths, ...others } = dependents
  const hit = Object.values(others).flat()
  return `${problem}: ${message}\n  hits ${hit.length === 0 ? 'nothing' : hit.join(', ')}${paths.length > 0 ? ` (${paths.join(', ')})` : ''}`
}
