import { and, eq, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { models, modelVersions } from '../../../db/schema.ts'
import { checkModelVersion, checkName, parseReference } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { findOrganization } from '../organizations/find.ts'
import { inTransaction } from '../transaction.ts'
import { checkFiles, describeDraft, setDraftFiles, type NewFile } from '../uploads/draft.ts'
import type { UploadSubject } from '../uploads/subject.ts'
import type { UploadView } from '../uploads/upload-view.ts'
import { findModelVersion, type ModelRow } from './find.ts'

export const PARENT_KINDS = ['continued-pretraining', 'instruction-tuning', 'fine-tuning', 'other'] as const

export interface DraftModelVersion {
  organization: string
  name: string
  version: string
  files: NewFile[]
  parent?: { reference: string; kind: (typeof PARENT_KINDS)[number] } | undefined
  description?: string | undefined
  visibility?: 'public' | 'internal' | undefined
}

/** Makes a draft, or finds it again: `created` tells which. The family comes into being with its first version. */
export async function draftModelVersion({ ctx, input }: { ctx: RequestContext; input: DraftModelVersion }): Promise<{ created: boolean; upload: UploadView }> {
  const organization = await findOrganization({ ctx, name: input.organization })
  assertMayPublish(ctx.principal, organization)
  checkName(input.name)
  checkModelVersion(input.version)
  checkFiles(input.files)
  const { userId } = ctx.principal
  const { created, subject, discard } = await inTransaction(ctx, async (tx) => {
    const model = await findOrCreateModel(tx, organization.id, input)
    const parentId = input.parent === undefined ? null : await findParent(ctx, tx, input.parent.reference)
    const [inserted] = await tx
      .insert(modelVersions)
      .values({ modelId: model.id, version: input.version, parentId, parentKind: input.parent?.kind ?? null, createdBy: userId })
      .onConflictDoNothing()
      .returning({ id: modelVersions.id, version: modelVersions.version })
    const [row] = inserted ? [inserted] : await tx.select({ id: modelVersions.id, version: modelVersions.version }).from(modelVersions).where(isVersion(model.id, input.version))
    const subject: UploadSubject = { kind: 'model', versionId: row!.id, reference: `${organization.name}/${model.name}@${row!.version}`, organization }
    const discard = await setDraftFiles({ ctx, tx, subject, files: input.files })
    if (!inserted) await tx.update(modelVersions).set({ parentId, parentKind: input.parent?.kind ?? null }).where(and(eq(modelVersions.id, row!.id), eq(modelVersions.state, 'draft')))
    return { created: inserted !== undefined, subject, discard }
  })
  for (const key of discard) await ctx.blobs.discard(key)
  return { created, upload: await describeDraft({ ctx, subject, files: input.files }) }
}

async function findOrCreateModel(tx: Database, organizationId: string, input: DraftModelVersion): Promise<ModelRow> {
  await tx
    .insert(models)
    .values({ organizationId, name: input.name, description: input.description ?? '', visibility: input.visibility ?? 'public' })
    .onConflictDoNothing()
  const [row] = await tx.select().from(models).where(and(eq(models.organizationId, organizationId), eq(sql`lower(${models.name})`, input.name.toLowerCase())))
  return row!
}

function isVersion(modelId: string, version: string) {
  return and(eq(modelVersions.modelId, modelId), eq(sql`lower(${modelVersions.version})`, version.toLowerCase()))
}

async function findParent(ctx: RequestContext, tx: Database, reference: string): Promise<string> {
  const { organization, name, selector } = parseReference(reference)
  if (selector === null) throw new ApiError('invalid_reference', `The parent ${reference} names no version: write organization/name@version.`)
  const { version } = await findModelVersion({ ctx, tx, organization, name, version: selector })
  if (version.state !== 'published') throw new ApiError('wrong_state', `The parent ${reference} is not published yet (${version.state}). Publish it first.`)
  return version.id
}
