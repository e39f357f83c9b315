import type { Database } from '../../../db/database.ts'
import { audit } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'

export interface AuditEntry {
  organizationId: string | null
  /** `<entity>.<verb>`, such as `patch-version.yank`. */
  action: string
  /** The reference or id of what changed. */
  subject: string
  before?: unknown
  after?: unknown
}

/** One row for one change of state, in the transaction of the change: where it cannot be written, nothing changes. */
export async function recordAudit({ ctx, tx, entry }: { ctx: Pick<RequestContext, 'principal' | 'requestId'>; tx: Database; entry: AuditEntry }): Promise<void> {
  const user = ctx.principal.kind === 'user' ? ctx.principal : null
  await tx.insert(audit).values({
    requestId: ctx.requestId,
    userId: user?.userId ?? null,
    tokenId: user?.tokenId ?? null,
    organizationId: entry.organizationId,
    action: entry.action,
    subject: entry.subject,
    before: entry.before ?? null,
    after: entry.after ?? null,
  })
}
