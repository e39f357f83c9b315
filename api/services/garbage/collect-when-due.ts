import { sql } from 'drizzle-orm'
import { settings } from '../../../db/schema.ts'
import type { Dependencies } from '../../context.ts'
import { collectGarbage } from './collect.ts'

const KEY = 'garbage-collection'
const EVERY = sql`interval '1 day'`

/** Collects once a day, whichever of the servers of one database asks first. */
export async function collectWhenDue({ ctx, signal, graceSeconds }: { ctx: Pick<Dependencies, 'db' | 'blobs'>; signal: AbortSignal; graceSeconds?: number }): Promise<void> {
  const due = await ctx.db
    .insert(settings)
    .values({ key: KEY, value: sql`to_jsonb(now())` })
    .onConflictDoUpdate({ target: settings.key, set: { value: sql`excluded.value` }, setWhere: sql`(${settings.value} #>> '{}')::timestamptz < now() - ${EVERY}` })
    .returning({ key: settings.key })
  if (due.length > 0) await collectGarbage({ ctx, input: { signal, graceSeconds } })
}
