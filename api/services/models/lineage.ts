import type { Database } from '../../../db/database.ts'
import type { RequestContext } from '../../context.ts'
import { modelLink } from '../manifests.ts'
import { findModelVersion, modelVersionReferences } from './find.ts'

export interface AncestorView { reference: string; digest: string; kind: string }
export interface AncestorRow { id: string; digest: string; kind: string }

/** The ancestors of a model version, nearest first. */
export async function describeLineage({ ctx, input }: { ctx: RequestContext; input: { organization: string; name: string; version: string } }): Promise<AncestorView[]> {
  const { version } = await findModelVersion({ ctx, ...input })
  const ancestors = await findAncestors(ctx.db, version)
  const references = await modelVersionReferences(ctx.db, ancestors.map((ancestor) => ancestor.id))
  return ancestors.map(({ id, digest, kind }) => ({ reference: references.get(id)!, digest, kind }))
}

/** Follows the parents. They are published before their children, so there is no circle. */
export async function findAncestors(db: Database, version: { parentId: string | null; parentKind: string | null }): Promise<AncestorRow[]> {
  const ancestors: AncestorRow[] = []
  for (let at = version; at.parentId !== null; ) {
    const parent = await modelLink(db, at.parentId)
    ancestors.push({ id: parent.id, digest: parent.digest, kind: at.parentKind ?? 'other' })
    at = parent
  }
  return ancestors
}
