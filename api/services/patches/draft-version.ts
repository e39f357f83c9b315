import { and, eq, sql } from 'drizzle-orm'
import semver from 'semver'
import type { Database } from '../../../db/database.ts'
import { patches, patchVersions } from '../../../db/schema.ts'
import { checkName, checkPatchVersion, isDistTag, parseReference } from '../../../patch/reference.ts'
import type { RequestContext } from '../../context.ts'
import { ApiError } from '../../errors.ts'
import { assertMayPublish } from '../authorization/authorize.ts'
import { discardStaged } from '../blobs/discard.ts'
import { findModelVersion } from '../models/find.ts'
import { findOrganization, type OrganizationRow } from '../organizations/find.ts'
import { inTransaction } from '../transaction.ts'
import { checkFiles, describeDraft, setDraftFiles, type NewFile } from '../uploads/draft.ts'
import type { UploadSubject } from '../uploads/subject.ts'
import type { UploadView } from '../uploads/upload-view.ts'
import type { PatchRow } from './find.ts'

/** A patch version to be, without its files. */
export interface NewPatchVersion {
  organization: string
  name: string
  version: string
  /** `org/name@version` of the model version that the patch was trained on. */
  base: string
  targetRange?: string | undefined
  tag?: string | undefined
  description?: string | undefined
  visibility?: 'public' | 'internal' | undefined
}

export interface DraftPatchVersion extends NewPatchVersion { files: NewFile[] }

/** Makes a draft, or finds it again: `created` tells which. The package comes into being with its first version. */
export async function draftPatchVersion({ ctx, input }: { ctx: RequestContext; input: DraftPatchVersion }): Promise<{ created: boolean; upload: UploadView }> {
  const organization = await findOrganization({ ctx, name: input.organization })
  assertMayPublish(ctx.principal, organization)
  checkNewPatchVersion(input)
  checkFiles(input.files)
  const baseVersionId = await findBase({ ctx, reference: input.base })
  const { userId } = ctx.principal
  const { created, subject, discard } = await inTransaction(ctx, async (tx) => {
    const { created, subject, settle } = await reservePatchVersion({ tx, organization, input, baseVersionId, userId })
    const discard = await setDraftFiles({ ctx, tx, subject, files: input.files })
    await settle()
    return { created, subject, discard }
  })
  await discardStaged(ctx.blobs, discard)
  return { created, upload: await describeDraft({ ctx, subject, files: input.files }) }
}

/**
 * The version's row, made now or found again, in whatever state: the caller locks and judges it, and calls `settle`, which
 * gives a draft that was there before its new settings.
 */
export async function reservePatchVersion({ tx, organization, input, baseVersionId, userId }: { tx: Database; organization: OrganizationRow; input: NewPatchVersion; baseVersionId: string; userId: string }): Promise<{ created: boolean; subject: UploadSubject; settle: () => Promise<void> }> {
  const settings = { baseVersionId, targetRange: input.targetRange ?? null, publishTag: input.tag ?? null }
  const patch = await findOrCreatePatch(tx, organization.id, input)
  const [inserted] = await tx
    .insert(patchVersions)
    .values({ patchId: patch.id, version: input.version, createdBy: userId, ...settings })
    .onConflictDoNothing()
    .returning({ id: patchVersions.id, version: patchVersions.version })
  const [row] = inserted ? [inserted] : await tx.select({ id: patchVersions.id, version: patchVersions.version }).from(patchVersions).where(isVersion(patch.id, input.version))
  return {
    created: inserted !== undefined,
    subject: { kind: 'patch', versionId: row!.id, reference: `${organization.name}/${patch.name}@${row!.version}`, organization },
    settle: async () => void (inserted ?? (await tx.update(patchVersions).set(settings).where(and(eq(patchVersions.id, row!.id), eq(patchVersions.state, 'draft'))))),
  }
}

export function checkNewPatchVersion(input: NewPatchVersion): void {
  checkName(input.name)
  checkPatchVersion(input.version)
  if (input.tag !== undefined && !isDistTag(input.tag)) throw new ApiError('invalid_name', `${JSON.stringify(input.tag)} cannot be a dist-tag: use a word that is no version or range, such as "beta".`)
  if (input.targetRange !== undefined && semver.validRange(input.targetRange) === null) {
    throw new ApiError('invalid_request', `targetRange ${JSON.stringify(input.targetRange)} is not a semver range, such as ">=1.0.0 <3.0.0".`)
  }
}

async function findOrCreatePatch(tx: Database, organizationId: string, input: NewPatchVersion): Promise<PatchRow> {
  await tx
    .insert(patches)
    .values({ organizationId, name: input.name, description: input.description ?? '', visibility: input.visibility ?? 'public' })
    .onConflictDoNothing()
  const [row] = await tx.select().from(patches).where(and(eq(patches.organizationId, organizationId), eq(sql`lower(${patches.name})`, input.name.toLowerCase())))
  return row!
}

function isVersion(patchId: string, version: string) {
  return and(eq(patchVersions.patchId, patchId), eq(sql`lower(${patchVersions.version})`, version.toLowerCase()))
}

/** Id of a published model version by `org/name@version`. Throws `base_not_found` also for one that the caller may not see. */
export async function findBase({ ctx, reference }: { ctx: RequestContext; reference: string }): Promise<string> {
  const { organization, name, selector } = parseReference(reference)
  if (selector === null) throw new ApiError('invalid_reference', `The base ${reference} names no version: write organization/name@version.`)
  try {
    const { version } = await findModelVersion({ ctx, organization, name, version: selector })
    if (version.state === 'published') return version.id
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 'not_found')) throw error
  }
  throw new ApiError(
    'base_not_found',
    `The base ${reference} is not in this registry, or you may not see it. Publish the model version that the patch was trained on first ("portllm publish <folder> --as ${reference}"), then the patch.`,
    { base: reference },
  )
}
