import { and, eq } from 'drizzle-orm'
import semver from 'semver'
import type { Database } from '../../../db/database.ts'
import { distTags, patches, patchVersions } from '../../../db/schema.ts'

/**
 * What publishing a version does to its package: the tag that its draft asked for moves to it; without one, `latest`
 * does where the version is no prerelease and greater than the present `latest`. The README is that of the newest.
 */
export async function movePatchTags({ tx, patchVersionId, readme }: { tx: Database; patchVersionId: string; readme: string | null }): Promise<void> {
  const [version] = await tx.select().from(patchVersions).where(eq(patchVersions.id, patchVersionId))
  const { patchId, publishTag } = version!
  // One publish of a package at a time decides about its tags.
  await tx.select({ id: patches.id }).from(patches).where(eq(patches.id, patchId)).for('update')
  const [latest] = await tx
    .select({ version: patchVersions.version })
    .from(distTags)
    .innerJoin(patchVersions, eq(patchVersions.id, distTags.patchVersionId))
    .where(and(eq(distTags.patchId, patchId), eq(distTags.tag, 'latest')))
  const isGreatest = semver.prerelease(version!.version) === null && (latest === undefined || semver.gt(version!.version, latest.version))
  const tag = publishTag ?? (isGreatest ? 'latest' : null)
  if (tag !== null) {
    await tx.insert(distTags).values({ patchId, tag, patchVersionId }).onConflictDoUpdate({ target: [distTags.patchId, distTags.tag], set: { patchVersionId } })
  }
  if (isGreatest || latest === undefined) await tx.update(patches).set({ readme }).where(eq(patches.id, patchId))
}
