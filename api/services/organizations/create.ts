import { checkName } from '../../../patch/reference.ts'
import { members, organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { recordAudit } from '../audit/record.ts'
import { assertMayCreateOrganization } from '../authorization/authorize.ts'
import { inTransaction } from '../transaction.ts'
import { toOrganizationView, type OrganizationView } from './organization-view.ts'

/** Makes the organization, with the caller as its admin. Names are unique whatever their case. */
export async function createOrganization({ ctx, input }: { ctx: RequestContext; input: { name: string; displayName?: string | undefined } }): Promise<OrganizationView> {
  const { principal } = ctx
  assertMayCreateOrganization(principal)
  checkName(input.name, 'organization')
  return inTransaction(ctx, async (tx) => {
    const [row] = await tx.insert(organizations).values({ name: input.name, displayName: input.displayName ?? null }).onConflictDoNothing().returning()
    if (row === undefined) throw new ApiError('already_exists', `The organization ${input.name} exists already (names are compared without case). Choose another name.`)
    await tx.insert(members).values({ organizationId: row.id, userId: principal.userId, role: 'admin' })
    const view = toOrganizationView(row)
    await recordAudit({ ctx, tx, entry: { organizationId: row.id, action: 'organization.create', subject: row.name, after: view } })
    return view
  })
}
