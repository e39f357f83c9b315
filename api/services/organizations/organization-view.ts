import type { organizations } from '../../../db/schema.ts'

export interface OrganizationView { name: string; displayName: string | null; createdAt: string }

export function toOrganizationView(row: typeof organizations.$inferSelect): OrganizationView {
  return { name: row.name, displayName: row.displayName, createdAt: row.createdAt.toISOString() }
}
