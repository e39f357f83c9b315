import { and, eq } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import { analyses, models, modelVersions, patches, patchVersions } from '../../../db/schema.ts'
import type { RequestContext } from '../../context.ts'
import { notFound } from '../../errors.ts'
import { visibleTo } from '../authorization/visibility.ts'

const baseVersions = alias(modelVersions, 'base_version')
const bases = alias(models, 'base')

export interface VisibleAnalysis {
  readonly analysis: typeof analyses.$inferSelect
  readonly patch: { readonly id: string; readonly digest: string }
  readonly base: { readonly id: string; readonly digest: string }
  readonly target: { readonly id: string; readonly digest: string }
  /** Whether everybody may see everything that it is about. */
  readonly isPublic: boolean
}

/**
 * An analysis, in whatever state. Only those see it who may see its patch, its base and its target: figures tell
 * something of all three. Throws `not_found`, with the same words for one that is not there and one that the caller may not see.
 */
export async function findVisibleAnalysis({ ctx, id }: { ctx: Pick<RequestContext, 'db' | 'principal'>; id: string }): Promise<VisibleAnalysis> {
  const { db, principal } = ctx
  const [row] = await db
    .select({
      analysis: analyses,
      patch: { id: patchVersions.id, digest: patchVersions.digest },
      base: { id: baseVersions.id, digest: baseVersions.digest },
      target: { id: modelVersions.id, digest: modelVersions.digest },
      visibilities: { patch: patches.visibility, base: bases.visibility, target: models.visibility },
    })
    .from(analyses)
    .innerJoin(patchVersions, eq(patchVersions.id, analyses.patchVersionId))
    .innerJoin(patches, eq(patches.id, patchVersions.patchId))
    .innerJoin(baseVersions, eq(baseVersions.id, patchVersions.baseVersionId))
    .innerJoin(bases, eq(bases.id, baseVersions.modelId))
    .innerJoin(modelVersions, eq(modelVersions.id, analyses.targetVersionId))
    .innerJoin(models, eq(models.id, modelVersions.modelId))
    .where(and(eq(analyses.id, id), visibleTo(principal, patches), visibleTo(principal, bases), visibleTo(principal, models)))
  if (row === undefined) throw notFound('The analysis', id)
  const published = <T extends { id: string; digest: string | null }>({ id: version, digest }: T) => ({ id: version, digest: digest! })
  return {
    analysis: row.analysis, patch: published(row.patch), base: published(row.base), target: published(row.target),
    isPublic: Object.values(row.visibilities).every((visibility) => visibility === 'public'),
  }
}
