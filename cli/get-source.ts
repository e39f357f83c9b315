import { isDigest, RULES, type Rule } from '../patch/derivation.ts'
import type { ManifestTensor } from '../patch/manifest.ts'
import type { MergeStorage } from '../patch/merge-storage.ts'
import { formatReference, parseReference } from '../patch/reference.ts'
import type { MergeAnswer, Merged, MergeWishes, Plan, Registry, VersionName } from './client.ts'
import { CliError, EXIT, usageError } from './exit.ts'
import { requireSuccess, waitForJob } from './job-wait.ts'
import type { Lockfile } from './lockfile.ts'
import { modelVersionName, pickPatchVersion } from './references.ts'

/** What is to be fetched, settled to the byte before anything is downloaded. */
export interface GetSource {
  /** Differs wherever the bytes do. */
  readonly identity: string
  readonly lock: Lockfile
  readonly plan: () => Promise<Plan>
  readonly tensors: readonly ManifestTensor[]
  /** How the registry keeps a merged model; null for what is none. */
  readonly kept: Pick<Merged, 'storage' | 'storageReason' | 'storedBytes'> | null
}

export type SourceKind = 'model' | 'patch'

/**
 * A merged model: the target with patches, waiting for the merge where it has to run first, and kept by the registry as
 * `storage` of the wishes says.
 */
export async function mergedSource(registry: Registry, target: string, patches: readonly string[], wishes: MergeWishes, quiet: boolean): Promise<GetSource> {
  for (const patch of patches) parseReference(patch)
  const answer = await registry.requestMerged(await modelVersionName(registry, target), [...patches], wishes)
  const merged = await finishMerge(registry, answer, quiet)
  const { storage } = wishes
  return describeMerged(registry, storage === undefined || storage === merged.storage ? merged : await changeStorage(registry, merged.id, storage, quiet))
}

/** What a lockfile says, by its digests: a version that was yanked since is found all the same. */
export async function lockedSource(registry: Registry, lock: Lockfile, quiet: boolean): Promise<GetSource> {
  if (lock.kind !== 'merged') {
    const source = await versionSource(registry, lock.target.reference, lock.kind)
    requireSame(lock, source.lock)
    return source
  }
  const patches = lock.patches.map(({ digest, weight }) => ({ digest, weight }))
  const answer = await registry.requestDerivation({ target: lock.target.digest, patches, options: lock.options })
  const source = await describeMerged(registry, await finishMerge(registry, answer, quiet))
  requireSame(lock, source.lock)
  return source
}

/** A plain model version or patch version. Without `kind`, whichever of the two has the name. */
export async function versionSource(registry: Registry, text: string, kind?: SourceKind): Promise<GetSource> {
  const { organization, name, selector } = parseReference(text)
  if (kind === 'patch') return patchSource(registry, organization, name, selector)
  if (kind === 'model') return modelSource(registry, await modelVersionName(registry, text))
  const [model, patch] = await Promise.all([exists(registry.getModel(organization, name)), exists(registry.getPatch(organization, name))])
  if (model && patch) throw usageError(`${organization}/${name} is both a model and a patch: say which with --kind model or --kind patch.`)
  if (patch) return patchSource(registry, organization, name, selector)
  return modelSource(registry, await modelVersionName(registry, text))
}

async function exists(request: Promise<unknown>): Promise<boolean> {
  try {
    await request
    return true
  } catch (error) {
    if (error instanceof CliError && error.exit === EXIT.notFound) return false
    throw error
  }
}

/** The merged model once it is kept like that. */
export async function changeStorage(registry: Registry, id: string, storage: MergeStorage, quiet: boolean): Promise<Merged> {
  return finishMerge(registry, await registry.setDerivationStorage(id, storage), quiet)
}

async function finishMerge(registry: Registry, answer: MergeAnswer, quiet: boolean): Promise<Merged> {
  if ('merged' in answer) return answer.merged
  requireSuccess(await waitForJob(registry, answer.job.id, 'Merging', quiet))
  return registry.getDerivation(answer.derivation)
}

async function describeMerged(registry: Registry, merged: Merged): Promise<GetSource> {
  const { id, rules, options, target, patches, files } = merged
  const { tensors } = await registry.getDerivationManifest(id)
  const changed = await changedTensors(registry, target, tensors)
  return {
    identity: `merged:${id}`,
    tensors,
    kept: merged,
    plan: () => registry.getDerivationPlan(id),
    lock: {
      format: 'portllm.lock/1', registry: registry.connection.registry, kind: 'merged', target: pick(target), rules: rules.map(knownRule), options, derivation: id,
      patches: patches.map(({ reference, digest, weight }) => ({ reference, digest, weight })),
      files: files.map(pickFile).sort(byPath), tensors: changed,
    },
  }
}

/** The tensors whose bytes are not those of the target. */
async function changedTensors(registry: Registry, target: { reference: string }, tensors: readonly ManifestTensor[]) {
  const { organization, name, selector } = parseReference(target.reference)
  const before = await registry.getModelManifest({ organization, name, version: selector! })
  const digests = new Map(before.tensors.map(({ name: tensor, digest }) => [tensor, digest]))
  return tensors.filter(({ name: tensor, digest }) => digests.get(tensor) !== digest).map(({ name: tensor, digest }) => ({ name: tensor, digest })).sort((a, b) => (a.name < b.name ? -1 : 1))
}

async function modelSource(registry: Registry, version: VersionName): Promise<GetSource> {
  const [{ reference, digest, files, state }, { tensors }] = await Promise.all([registry.getModelVersion(version), registry.getModelManifest(version)])
  return plainSource(registry, 'model', { reference, digest, state }, files, tensors, () => registry.getModelPlan(version))
}

async function patchSource(registry: Registry, organization: string, name: string, selector: string | null): Promise<GetSource> {
  const { version } = pickPatchVersion(await registry.getPatch(organization, name), selector)
  const exact = { organization, name, version }
  const [{ digest, files, state }, { tensors }] = await Promise.all([registry.getPatchVersion(exact), registry.getPatchManifest(exact)])
  const reference = formatReference({ organization, name, selector: version })
  return plainSource(registry, 'patch', { reference, digest, state }, files, tensors, () => registry.getPatchPlan(exact))
}

function plainSource(
  registry: Registry, kind: SourceKind, { reference, digest, state }: { reference: string; digest: string | null; state: string },
  files: readonly { path: string; size: number; etag: string }[], tensors: readonly ManifestTensor[], plan: () => Promise<Plan>,
): GetSource {
  if (digest === null) throw new CliError(EXIT.notFound, 'not_published', `${reference} is not published yet (it is ${state}).`)
  return {
    identity: `${kind}:${digest}`, tensors, plan, kept: null,
    lock: { format: 'portllm.lock/1', registry: registry.connection.registry, kind, target: { reference, digest }, patches: [], rules: [], options: {}, derivation: null, files: files.map(pickFile).sort(byPath), tensors: [] },
  }
}

function pick({ reference, digest }: { reference: string; digest: string }) {
  if (!isDigest(digest)) throw new CliError(EXIT.damaged, 'bad_answer', `The registry gives ${JSON.stringify(digest)} as a digest.`)
  return { reference, digest }
}

function byPath(a: { path: string }, b: { path: string }): number {
  return a.path < b.path ? -1 : 1
}

function knownRule(rule: string): Rule {
  const known = RULES.find((name) => name === rule)
  if (known === undefined) throw new CliError(EXIT.failure, 'unknown_rule', `The registry merges by the rule ${JSON.stringify(rule)}, which this version of portllm does not know. Update portllm.`)
  return known
}

function pickFile({ path, size, etag }: { path: string; size: number; etag: string }) {
  return { path, size, etag }
}

/** The registry must give what the lockfile says, to the digest. */
function requireSame(expected: Lockfile, found: Lockfile): void {
  for (const part of ['derivation', 'rules', 'files', 'tensors'] as const) {
    if (JSON.stringify(expected[part]) !== JSON.stringify(found[part])) throw differs(part)
  }
  if (expected.target.digest !== found.target.digest) throw differs('target')
}

function differs(part: string): CliError {
  return new CliError(EXIT.damaged, 'lock_mismatch', `The registry gives other bytes than the lockfile says (${part}). It is not the registry that the lockfile was written with, or the lockfile was edited. Nothing was written.`)
}
