import { createHash } from 'node:crypto'
import { loadCore } from '../gpu-runner/core/core.ts'
import { mergedRows, TILES, tileBytes, type MergeInputs } from '../gpu-runner/core/merged-rows.ts'
import { download } from '../gpu-runner/download.ts'
import { JobFailure } from '../gpu-runner/job-failure.ts'
import { readAdapter } from '../patch/adapter.ts'
import { modelDigest, patchDigest, type Derivation } from '../patch/derivation.ts'
import { adapterEdits } from '../patch/edits.ts'
import type { ModelManifest } from '../patch/manifest.ts'
import { planMerge, type PlannedPatch, type StoredBytes, type TensorPlan } from '../patch/merge-plan.ts'
import { layOptions } from '../patch/recipe.ts'
import { parseReference } from '../patch/reference.ts'
import type { Merged, Registry, VersionName, VersionKind } from './client.ts'
import { CliError, EXIT } from './exit.ts'
import { explainNetworkError } from './network.ts'
import { USER_AGENT } from './version.ts'

/** A merge planned anew here, from the inputs that its recipe names. */
export interface Rederivation {
  readonly plans: readonly TensorPlan[]
  /** SHA-256 of the tensor as it is computed here now, as `sha256:…`. */
  digest(plan: TensorPlan, onBytes: (count: number) => void): Promise<string>
}

/** Plans the merge from the manifests of its inputs, each held to its digest in the recipe. Throws CliError. */
export async function planRederivation(registry: Registry, { target, patches }: Merged, recipe: Derivation): Promise<Rederivation> {
  const targetName = versionName(target.reference)
  const manifest = await registry.getModelManifest(targetName)
  requireDigest(target.reference, recipe.target, await modelDigest(manifest.files))
  const planned: (PlannedPatch & { readonly name: VersionName; readonly baseName: VersionName })[] = []
  for (const [index, { reference }] of patches.entries()) {
    const name = versionName(reference)
    const [version, patch] = await Promise.all([registry.getPatchVersion(name), registry.getPatchManifest(name)])
    const { digest, weight } = recipe.patches[index]!
    requireDigest(reference, digest, await patchDigest(patch.files))
    const baseName = versionName(version.base.reference)
    const baseDigest = recipe.patches[index]!.base
    // A base that the merge does not read may be out of sight.
    const base = await registry.getModelManifest(baseName).catch((error: unknown) => {
      if (baseDigest === undefined && error instanceof CliError && error.exit === EXIT.notFound) return null
      throw error
    })
    if (base !== null && baseDigest !== undefined) requireDigest(version.base.reference, baseDigest, await modelDigest(base.files))
    planned.push({ manifest: patch, ...layPatch(patch, manifest, base, recipe), weight, base, name, baseName })
  }
  const plans = planMerge({ target: manifest, patches: planned })
  const core = await loadCore()
  const range = (kind: VersionKind, name: VersionName, file: string, offset: number, length: number) => fetchRange(registry, kind, name, file, offset, length)
  const read = ({ patch, of, file, offset }: StoredBytes, from: number, length: number) => {
    const { name, baseName } = planned[patch]!
    return of === 'patch' ? range('patches', name, file, offset + from, length) : range('models', baseName, file, offset + from, length)
  }
  return {
    plans,
    async digest(plan, onBytes) {
      const inputs: MergeInputs<StoredBytes> = { source: (offset, length) => range('models', targetName, plan.source.file, plan.source.offset + offset, length), read }
      const buffers = Array.from({ length: TILES }, () => Buffer.allocUnsafeSlow(tileBytes(plan)))
      const hash = createHash('sha256')
      try {
        for await (const bytes of mergedRows(plan, inputs, { core, buffers })) {
          hash.update(bytes)
          onBytes(bytes.byteLength)
        }
      } catch (error) {
        registry.signal.throwIfAborted()
        if (error instanceof JobFailure) throw new CliError(EXIT.network, error.code, `The inputs of ${plan.name} cannot be fetched from ${registry.connection.registry}. ${error.message}`, { cause: error })
        throw explainNetworkError(error, registry.connection.registry)
      }
      return `sha256:${hash.digest('hex')}`
    },
  }
}

function layPatch(patch: PlannedPatch['manifest'], target: ModelManifest, base: ModelManifest | null, recipe: Derivation) {
  const { edits, untied, reasons } = adapterEdits(readAdapter(patch.adapterConfig, patch.tensors), target, base, layOptions(recipe))
  const refusal = reasons.find(({ severity }) => severity === 'refusal')
  if (refusal !== undefined) throw new CliError(EXIT.incompatible, 'incompatible', `By this version of portllm the patch does not fit the target: ${refusal.message} Update portllm, or the registry.`)
  return { edits, untied }
}

/** A run of bytes of a version's file, from the registry's own route: it needs no plan, and its URLs do not expire. */
function fetchRange(registry: Registry, kind: VersionKind, { organization, name, version }: VersionName, file: string, offset: number, length: number) {
  const { registry: address, token } = registry.connection
  const path = ['v1', kind, organization, name, version, 'files', ...file.split('/')].map(encodeURIComponent).join('/')
  const headers = { 'user-agent': USER_AGENT, range: `bytes=${offset}-${offset + length - 1}`, ...(token !== null && { authorization: `Bearer ${token}` }) }
  return download({ method: 'GET', url: `${address}/${path}`, headers }, length, registry.signal)
}

function versionName(reference: string): VersionName {
  const { organization, name, selector } = parseReference(reference)
  return { organization, name, version: selector! }
}

function requireDigest(reference: string, expected: string, found: string): void {
  if (expected === found) return
  throw new CliError(EXIT.damaged, 'digest_mismatch', `The files that the registry lists for ${reference} have the digest ${found}, and the recipe says ${expected}: they are not the files that were merged.`)
}
