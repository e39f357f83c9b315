import { eq, inArray } from 'drizzle-orm'
import { organizations, tokens } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import type { Role, Scope } from '../authorization/principal.ts'

export interface Caller {
  user: { id: string; name: string; isAdmin: boolean } | null
  token: { id: string; scopes: Scope[]; organization: string | null; expiresAt: string | null } | null
  organizations: { name: string; role: Role }[]
}

export async function describeCaller({ ctx }: { ctx: RequestContext }): Promise<Caller> {
  const { principal, db } = ctx
  if (principal.kind === 'anonymous') return { user: null, token: null, organizations: [] }
  const [token] = await db
    .select({ expiresAt: tokens.expiresAt, organization: organizations.name })
    .from(tokens)
    .leftJoin(organizations, eq(organizations.id, tokens.organizationId))
    .where(eq(tokens.id, principal.tokenId))
  const ids = [...principal.roles.keys()]
  const member = ids.length === 0 ? [] : await db.select({ id: organizations.id, name: organizations.name }).from(organizations).where(inArray(organizations.id, ids)).orderBy(organizations.name)
  return {
    user: { id: principal.userId, name: principal.userName, isAdmin: principal.isAdmin },
    token: {
      id: principal.tokenId,
      scopes: [...principal.scopes],
      organization: token?.organization ?? null,
      expiresAt: token?.expiresAt?.toISOString() ?? null,
    },
    organizations: member.map(({ id, name }) => ({ name, role: principal.roles.get(id)! })),
  }
}
