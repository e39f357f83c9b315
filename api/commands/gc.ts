import type { Command } from 'commander'
import type { ServerConfig } from '../config.ts'
import { connectBlobs } from '../connect-blobs.ts'
import { withDatabase } from '../open-registry.ts'
import { formatBytes } from '../pages/format.ts'
import { collectGarbage, DRAFT_SECONDS, type GarbageReport, type GarbageRequest } from '../services/garbage/collect.ts'
import { addOperatorCommand, interruption, readDuration, readOperatorConfig, UNUSED_URL, type OperatorOptions } from './operator.ts'

interface GcOptions extends OperatorOptions { dryRun?: true; grace?: number; drafts: number }

export function addGc(program: Command): void {
  addOperatorCommand(program, 'gc', 'removes what nothing in the database can reach; the server does so itself once a day')
    .option('--dry-run', 'remove nothing: say what would be removed')
    .option('--grace <time>', 'keep what was written or let go of less long ago', readDuration)
    .option('--drafts <time>', 'remove the bytes of drafts that nobody has added to for so long', readDuration, DRAFT_SECONDS)
    .addHelpText('after', `
Times are a number and s, m, h or d; the grace is PORTLLM_GARBAGE_GRACE_HOURS, or a day, for drafts 30 days. With DATABASE_URL the server may run; the embedded
one must be stopped.

Example:
  portllm-server gc --dry-run --grace 2d`)
    .action(runGc)
}

async function runGc({ dryRun, grace, drafts, json, ...options }: GcOptions): Promise<void> {
  const config = readOperatorConfig(options)
  const graceSeconds = grace ?? config.garbageGraceHours * 3600
  const report = await collectOf(config, { dryRun: dryRun === true, graceSeconds, draftSeconds: drafts, signal: interruption() })
  console.log(json ? JSON.stringify(report) : describe(report))
}

/** Collects the garbage of the registry of a configuration. */
export function collectOf(config: ServerConfig, input: GarbageRequest): Promise<GarbageReport> {
  return withDatabase(config, async ({ db }) => {
    const { blobs } = await connectBlobs({ config, db, publicUrl: UNUSED_URL })
    return collectGarbage({ ctx: { db, blobs }, input })
  })
}

const NAMES = { blobs: 'blobs', uploads: 'staged uploads', attempts: 'outputs of ended jobs', incoming: 'unfinished writes' }

function describe({ dryRun, removed }: GarbageReport): string {
  const lines = Object.entries(removed).filter(([, { objects }]) => objects > 0).map(([kind, { objects, bytes }]) => `${dryRun ? 'would remove' : 'removed'} ${objects} ${NAMES[kind as keyof typeof NAMES]}, ${formatBytes(bytes)}`)
  return lines.length > 0 ? lines.join('\n') : 'There is nothing to remove.'
}
