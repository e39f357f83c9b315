import { sql } from 'drizzle-orm'
import type { Dependencies, Deployment } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { VERSION } from '../../version.ts'

/** Throws `unavailable` when the database does not answer. */
export async function checkHealth({ ctx }: { ctx: Dependencies }): Promise<{ status: 'ok'; version: string; deployment: Deployment }> {
  try {
    await ctx.db.execute(sql`select 1`)
  } catch (cause) {
    throw new ApiError('unavailable', 'The database of this registry does not answer. Try again in a while.', undefined, { cause })
  }
  return { status: 'ok', version: VERSION, deployment: ctx.deployment }
}
