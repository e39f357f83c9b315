import { and, eq, sql } from 'drizzle-orm'
import { organizations } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError, notFound } from '../../errors.ts'
import { mayReadInternal } from '../authorization/authorize.ts'
import { visibleTo } from '../authorization/visibility.ts'
import { findDerivationState } from '../derivations/find-visible.ts'
import { findVisibleEvaluation } from '../evaluations/find-visible.ts'
import type { FileOwner } from '../derivations/read-extents.ts'
import { PACKAGES, type PackageKind } from '../packages.ts'
import { ownerColumns } from '../uploads/subject.ts'

/** What the caller names: a version of a package, a merged model, or an evaluation. */
export type FileSubject =
  | { readonly kind: PackageKind; readonly organization: string; readonly name: string; readonly version: string }
  | { readonly kind: 'derivation'; readonly id: string }
  | { readonly kind: 'evaluation'; readonly id: string }

export interface FoundOwner {
  readonly owner: FileOwner
  readonly reference: string
  readonly visibility: 'public' | 'internal'
}

type Scope = Pick<RequestContext, 'db' | 'principal'>

/**
 * Whose files are meant, without the manifest, which is too large to read for each range of a file. Throws `not_found`,
 * in the words of findModelVersion and its like, also for what the caller may not see; `wrong_state` where
 * the caller sees it but it is not published or merged yet.
 */
export async function findFileOwner({ ctx, subject }: { ctx: Scope; subject: FileSubject }): Promise<FoundOwner> {
  if (subject.kind === 'derivation') return findReadyDerivation(ctx, subject.id)
  if (subject.kind === 'evaluation') return findReadyEvaluation(ctx, subject.id)
  const asked = `${subject.organization}/${subject.name}@${subject.version}`
  const missing = () => notFound(`The ${subject.kind} version`, asked)
  // PostgreSQL refuses a text with this character, where a path may hold it (%00).
  if (asked.includes('\0')) throw missing()
  const { versions, families, familyId } = PACKAGES[subject.kind]
  const [row] = await ctx.db
    .select({
      id: versions.id, state: versions.state, version: versions.version,
      name: families.name, visibility: families.visibility, organizationId: organizations.id, organization: organizations.name,
    })
    .from(versions)
    .innerJoin(families, eq(families.id, familyId))
    .innerJoin(organizations, eq(organizations.id, families.organizationId))
    .where(
      and(
        eq(sql`lower(${organizations.name})`, subject.organization.toLowerCase()),
        eq(sql`lower(${families.name})`, subject.name.toLowerCase()),
        eq(sql`lower(${versions.version})`, subject.version.toLowerCase()),
        visibleTo(ctx.principal, families),
      ),
    )
  const published = row?.state === 'published'
  if (row === undefined || (!published && !mayReadInternal(ctx.principal, row.organizationId))) {
    throw missing()
  }
  const reference = `${row.organization}/${row.name}@${row.version}`
  if (!published) throw new ApiError('wrong_state', `${reference} is not published (its state is ${row.state}), so its files cannot be fetched yet. See .../upload for what is missing.`)
  return { owner: ownerColumns({ kind: subject.kind, versionId: row.id }), reference, visibility: row.visibility }
}

async function findReadyDerivation(ctx: Scope, id: string): Promise<FoundOwner> {
  const { state, visibility } = await findDerivationState({ ctx, id })
  if (state !== 'ready') {
    throw new ApiError('wrong_state', `The merged model ${id} is not ready (its state is ${state}), so its files cannot be fetched yet. GET /v1/derivations/${id} names its job.`)
  }
  return { owner: { derivationId: id }, reference: id, visibility }
}

async function findReadyEvaluation(ctx: Scope, id: string): Promise<FoundOwner> {
  // The parameter of a path may be anything, and PostgreSQL refuses what is no UUID.
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)) throw notFound('The evaluation', id)
  const { evaluation, isPublic } = await findVisibleEvaluation({ ctx, id })
  if (evaluation.state !== 'ready') throw new ApiError('wrong_state', `The evaluation ${id} is not ready (its state is ${evaluation.state}), so there is nothing recorded yet. GET /v1/evaluations/${id} names its job.`)
  return { owner: { evaluationId: id }, reference: id, visibility: isPublic ? 'public' : 'internal' }
}
