import { join } from 'node:path'
import { virtualFileEtag } from '../patch/derivation.ts'
import { DERIVATION_METADATA_KEY } from '../patch/layout.ts'
import type { ManifestTensor } from '../patch/manifest.ts'
import { SafetensorsError, type SafetensorsHeader } from '../patch/safetensors.ts'
import type { Plan, PlanFile } from './client.ts'
import { hashRange } from './hash.ts'
import type { Progress } from './progress.ts'
import { readSafetensorsHeader } from './safetensors-file.ts'

/** Bytes of a file that are not what they should be. */
export interface Damage {
  readonly path: string
  readonly start: number
  readonly end: number
}

export interface VerifyInput {
  readonly folder: string
  readonly plan: Plan
  readonly tensors: readonly ManifestTensor[]
  /** 64 hex digits: the derivation that made the changed files; null for an uploaded version. */
  readonly derivation: string | null
  readonly progress: Progress
  readonly signal: AbortSignal
}

/**
 * Reads every byte again. A file whose ETag is the digest of its content is checked against that; a file that a merge
 * made (its ETag follows from its derivation) tensor by tensor against the manifest, its header against its blob.
 */
export async function findDamage(input: VerifyInput): Promise<Damage[]> {
  const byFile = Map.groupBy(input.tensors, (tensor) => tensor.file)
  const total = input.plan.files.reduce((sum, { size }) => sum + size, 0)
  let done = 0
  const count = (bytes: number) => input.progress.update((done += bytes), total)
  const damage: Damage[] = []
  for (const file of input.plan.files) {
    const tensors = byFile.get(file.path) ?? []
    for (const found of (await isVirtual(input, file)) ? await checkTensors(input, file, tensors, count) : await checkWhole(input, file, tensors, count)) damage.push(found)
  }
  return damage
}

/** A merge fixes the ETag of what it changed: the derivation's own files, or those of the derived target. */
async function isVirtual({ derivation, folder }: VerifyInput, { path, etag }: PlanFile): Promise<boolean> {
  if (!path.endsWith('.safetensors')) return false
  if (derivation !== null && (await virtualFileEtag(derivation, path)) === etag) return true
  const origin = (await tryHeader(join(folder, path)))?.metadata[DERIVATION_METADATA_KEY]
  return origin !== undefined && (await virtualFileEtag(origin, path)) === etag
}

async function checkWhole(input: VerifyInput, file: PlanFile, tensors: readonly ManifestTensor[], count: (bytes: number) => void): Promise<Damage[]> {
  const absolute = join(input.folder, file.path)
  if ((await hashRange(absolute, 0, file.size, input.signal, count)) === file.etag) return []
  // The tensors' own digests tell where; anything else is fetched again whole.
  const found = tensors.length === 0 ? [] : await checkTensors(input, file, tensors, () => {})
  return found.length > 0 ? found : [{ path: file.path, start: 0, end: file.size }]
}

async function checkTensors({ folder, signal }: VerifyInput, file: PlanFile, tensors: readonly ManifestTensor[], count: (bytes: number) => void): Promise<Damage[]> {
  const absolute = join(folder, file.path)
  const dataStart = tensors.reduce((start, { offset }) => Math.min(start, offset), file.size)
  const damage: Damage[] = []
  if (!(await isHeaderSound(absolute, file, tensors, dataStart, signal))) damage.push({ path: file.path, start: 0, end: dataStart })
  count(dataStart)
  for (const { offset, length, digest } of tensors) {
    if (`sha256:${await hashRange(absolute, offset, offset + length, signal, count)}` !== digest) damage.push({ path: file.path, start: offset, end: offset + length })
  }
  return damage
}

/** The header says what the manifest says, and is the blob that the plan names where it is one blob of its own. */
async function isHeaderSound(absolute: string, { extents }: PlanFile, tensors: readonly ManifestTensor[], dataStart: number, signal: AbortSignal): Promise<boolean> {
  const header = await tryHeader(absolute)
  if (header === null || header.dataOffset !== dataStart || header.tensors.length !== tensors.length) return false
  const byName = new Map(header.tensors.map((tensor) => [tensor.name, tensor]))
  const agrees = tensors.every(({ name, dtype, shape, offset, length }) => {
    const found = byName.get(name)
    return found?.dtype === dtype && found.shape.join() === shape.join() && found.begin + header.dataOffset === offset && found.end - found.begin === length
  })
  const first = extents[0]
  const isOwnBlob = first?.offset === 0 && first.length === dataStart
  return agrees && (!isOwnBlob || (await hashRange(absolute, 0, dataStart, signal)) === first.blob)
}

async function tryHeader(absolute: string): Promise<SafetensorsHeader | null> {
  try {
    return await readSafetensorsHeader(absolute)
  } catch (error) {
    if (error instanceof SafetensorsError) return null
    throw error
  }
}
