import { and, eq, sql } from 'drizzle-orm'
import type { Database } from '../../../db/database.ts'
import { models, modelVersions } from '../../../db/schema.ts'
import { checkModelVersion, checkName, parseReference } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { discardStaged } from '../blobs/discard.ts'
import { findOrganization, type OrganizationRow } from '../organizations/find.ts'
import { inTransaction } from '../transaction.ts'
import { checkFiles, describeDraft, setDraftFiles, type NewFile } from '../uploads/draft.ts'
import type { UploadSubject } from '../uploads/subject.ts'
import type { UploadView } from '../uploads/upload-view.ts'
import { findModelVersion, type ModelRow } from './find.ts'

export const PARENT_KINDS = ['continued-pretraining', 'instruction-tuning', 'fine-tuning', 'other'] as const

/** A model version to be, without its files. */
export interface NewModelVersion {
  organization: string
  name: string
  version: string
  parent?: { reference: string; kind: (typeof PARENT_KINDS)[number] } | undefined
  description?: string | undefined
  visibility?: 'public' | 'internal' | undefined
}

export interface DraftModelVersion extends NewModelVersion { files: NewFile[] }

/** Makes a draft, or finds it again: `created` tells which. The family comes into being with its first version. */
export async function draftModelVersion({ ctx, input }: { ctx: RequestContext; input: DraftModelVersion }): Promise<{ created: boolean; upload: UploadView }> {
  const organization = await findOrganization({ ctx, name: input.organization })
  assertMayPublish(ctx.principal, organization)
  checkName(input.name)
  checkModelVersion(input.version)
  checkFiles(input.files)
  const { userId } = ctx.principal
  const { created, subject, discard } = await inTransaction(ctx, async (tx) => {
    const { created, subject, settle } = await reserveModelVersion({ ctx, tx, organization, input, userId })
    const discard = await setDraftFiles({ ctx, tx, subject, files: input.files })
    await settle()
    return { created, subject, discard }
  })
  await discardStaged(ctx.blobs, discard)
  return { created, upload: await describeDraft({ ctx, subject, files: input.files }) }
}

/**
 * The version's row, made now or found again, in whatever state: the caller locks and judges it, and calls `settle`, which
 * gives a draft that was there before its new parent. Throws `wrong_state` for a parent that is not published.
 */
export async function reserveModelVersion({ ctx, tx, organization, input, userId }: { ctx: RequestContext; tx: Database; organization: OrganizationRow; input: NewModelVersion; userId: string }): Promise<{ created: boolean; subject: UploadSubject; settle: () => Promise<void> }> {
  const model = await findOrCreateModel(tx, organization.id, input)
  const parent = { parentId: input.parent === undefined ? null : await findParent(ctx, tx, input.parent.reference), parentKind: input.parent?.kind ?? null }
  const [inserted] = await tx
    .insert(modelVersions)
    .values({ modelId: model.id, version: input.version, createdBy: userId, ...parent })
    .onConflictDoNothing()
    .returning({ id: modelVersions.id, version: modelVersions.version })
  const [row] = inserted ? [inserted] : await tx.select({ id: modelVersions.id, version: modelVersions.version }).from(modelVersions).where(isVersion(model.id, input.version))
  return {
    created: inserted !== undefined,
    subject: { kind: 'model', versionId: row!.id, reference: `${organization.name}/${model.name}@${row!.version}`, organization },
    settle: async () => void (inserted ?? (await tx.update(modelVersions).set(parent).where(and(eq(modelVersions.id, row!.id), eq(modelVersions.state, 'draft'))))),
  }
}

async function findOrCreateModel(tx: Database, organizationId: string, input: NewModelVersion): Promise<ModelRow> {
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
