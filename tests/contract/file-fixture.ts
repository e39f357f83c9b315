import { createHash } from 'node:crypto'
import type { Role, Scope } from '../../api/services/authorization/principal.ts'
import { newTokenText, tokenSha256 } from '../../api/services/tokens/token-text.ts'
import {
  blobs, derivationPatches, derivations, extents, files, members, models, modelVersions, organizations, patches, patchVersions, tokens, users,
} from '../../db/schema.ts'
import { derivationId, newDerivation, virtualFileEtag } from '../../patch/derivation.ts'
import type { Extent } from '../../patch/extent.ts'
import { startTestRegistry, type TestRegistry } from './harness.ts'

type Visibility = 'public' | 'internal'
type State = 'draft' | 'verifying' | 'published'
type Owner = { modelVersionId: string } | { patchVersionId: string } | { derivationId: string }

export interface StoredFile { path: string; bytes: Uint8Array; etag: string; extents: Extent[] }

/** A registry whose rows are written directly: files whose extents are laid out as a test wants them. */
export interface FileFixture {
  registry: TestRegistry
  blob(bytes: Uint8Array): Promise<string>
  organization(): Promise<{ id: string; name: string }>
  member(organization: { id: string } | null, role?: Role, scopes?: Scope[]): Promise<string>
  model(organization: { id: string; name: string }, options?: { visibility?: Visibility; state?: State }): Promise<{ id: string; path: string }>
  patch(organization: { id: string; name: string }, baseVersionId: string, options?: { visibility?: Visibility; state?: State }): Promise<{ id: string; path: string }>
  derivation(targetVersionId: string, patchVersionIds: string[], state?: 'queued' | 'ready'): Promise<{ id: string; path: string }>
  /** The rows of a file; the blobs are there already. */
  file(owner: Owner, path: string, list: Extent[], bytes: Uint8Array): Promise<StoredFile>
  close(): Promise<void>
}

export async function startFileFixture(): Promise<FileFixture> {
  const registry = await startTestRegistry()
  const { db, blobs: store } = registry.server.dependencies
  const [admin] = await db.select().from(users)
  let count = 0
  const unique = (word: string) => `${word}-${++count}`

  async function insertFamily(table: typeof models | typeof patches, organizationId: string, name: string, visibility: Visibility): Promise<string> {
    const [row] = await db.insert(table).values({ organizationId, name, visibility }).returning({ id: table.id })
    return row!.id
  }

  return {
    registry,
    async blob(bytes) {
      const sha256 = sha256Hex(bytes)
      await store.putBlob(sha256, bytes)
      await db.insert(blobs).values({ sha256, size: bytes.length }).onConflictDoNothing()
      return sha256
    },
    async organization() {
      const [row] = await db.insert(organizations).values({ name: unique('org') }).returning()
      return row!
    },
    async member(organization, role = 'reader', scopes = ['read']) {
      const [user] = await db.insert(users).values({ name: unique('user') }).returning()
      if (organization !== null) await db.insert(members).values({ organizationId: organization.id, userId: user!.id, role })
      const text = newTokenText()
      await db.insert(tokens).values({ userId: user!.id, name: 'test', sha256: await tokenSha256(text), scopes })
      return text
    },
    async model(organization, { visibility = 'public', state = 'published' } = {}) {
      const name = unique('model')
      const modelId = await insertFamily(models, organization.id, name, visibility)
      const [row] = await db.insert(modelVersions).values({ modelId, version: 'v1', state, createdBy: admin!.id }).returning()
      return { id: row!.id, path: `/v1/models/${organization.name}/${name}/v1` }
    },
    async patch(organization, baseVersionId, { visibility = 'public', state = 'published' } = {}) {
      const name = unique('patch')
      const patchId = await insertFamily(patches, organization.id, name, visibility)
      const [row] = await db.insert(patchVersions).values({ patchId, version: '1.0.0', state, baseVersionId, createdBy: admin!.id }).returning()
      return { id: row!.id, path: `/v1/patches/${organization.name}/${name}/1.0.0` }
    },
    async derivation(targetVersionId, patchVersionIds, state = 'ready') {
      const digest = () => `sha256:${sha256Hex(new TextEncoder().encode(unique('digest')))}`
      const recipe = newDerivation(digest(), patchVersionIds.map(() => ({ digest: digest(), weight: 1 })))
      const id = await derivationId(recipe)
      await db.insert(derivations).values({ id, recipe, targetVersionId, state })
      for (const [position, patchVersionId] of patchVersionIds.entries()) {
        await db.insert(derivationPatches).values({ derivationId: id, position, patchVersionId, weight: 1 })
      }
      return { id, path: `/v1/derivations/${id}` }
    },
    async file(owner, path, list, bytes) {
      const etag = 'derivationId' in owner ? await virtualFileEtag(owner.derivationId, path) : sha256Hex(bytes)
      const [row] = await db.insert(files).values({ ...owner, path, size: bytes.length, etag }).returning()
      if (list.length > 0) await db.insert(extents).values(list.map((extent, position) => ({ fileId: row!.id, position, ...extent })))
      return { path, bytes, etag, extents: list }
    },
    close: () => registry.close(),
  }
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
