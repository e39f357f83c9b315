import type { tokens } from '../../../db/schema.ts'
import type { Scope } from '../authorization/principal.ts'

export interface TokenView {
  id: string
  name: string
  scopes: Scope[]
  organization: string | null
  createdAt: string
  expiresAt: string | null
  lastUsedAt: string | null
  revokedAt: string | null
}

export function toTokenView(row: typeof tokens.$inferSelect, organization: string | null): TokenView {
  return {
    id: row.id,
    name: row.name,
    scopes: row.scopes as Scope[],
    organization,
    createdAt: row.createdAt.toISOString(),
    expiresAt: row.expiresAt?.toISOString() ?? null,
    lastUsedAt: row.lastUsedAt?.toISOString() ?? null,
    revokedAt: row.revokedAt?.toISOString() ?? null,
  }
}
