import type { Collection, Removed } from './removed.ts'

/** What was on its way in when a server was killed. */
export async function collectIncoming({ ctx, before, dryRun }: Collection): Promise<Removed> {
  const total = { objects: 0, bytes: 0 }
  for await (const { key, size, modifiedAt } of ctx.blobs.list('incoming')) {
    if (modifiedAt >= before) continue
    if (!dryRun) await ctx.blobs.discard(key)
    total.objects++
    total.bytes += size
  }
  return total
}
