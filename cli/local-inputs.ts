import { join } from 'node:path'
import { readAdapter, type Adapter } from '../patch/adapter.ts'
import { openCheckpoint } from '../patch/checkpoint.ts'
import { checkConsumption } from '../patch/consumption.ts'
import { modelDigest, patchDigest } from '../patch/derivation.ts'
import type { Edit } from '../patch/edit.ts'
import { adapterEdits } from '../patch/edits.ts'
import type { LayOptions } from '../patch/laying.ts'
import type { ManifestTensor, ModelManifest, PatchManifest } from '../patch/manifest.ts'
import type { Reason } from '../patch/resolution.ts'
import type { UntiedHead } from '../patch/tied-embeddings.ts'
import { isVocabularyLayer } from '../patch/vocabulary-layers.ts'
import { CliError, EXIT } from './exit.ts'
import { digestFiles } from './file-digests.ts'
import { folderKind } from './folder-kind.ts'
import { hashRange } from './hash.ts'
import { readLocalModel, readLocalPatch, type LocalModel } from './local-model.ts'
import { startProgress } from './progress.ts'
import { publishableFiles, type LocalFile } from './publishable-files.ts'
import { describeReason } from './reasons.ts'
import type { Session } from './session.ts'

export interface LocalTarget extends LocalModel {
  readonly folder: string
  readonly digest: string
  readonly local: readonly LocalFile[]
  readonly hashSeconds: number
}

export interface LocalPatch {
  readonly folder: string
  readonly local: readonly LocalFile[]
  readonly weight: number
  readonly digest: string
  readonly manifest: PatchManifest
  /** The exact model that it was trained on, where its folder was named. */
  readonly base: LocalTarget | null
  readonly edits: readonly Edit[]
  readonly untied: UntiedHead | null
  readonly hashSeconds: number
  readonly reasons: readonly Reason[]
}

export async function readTarget(session: Session, folder: string): Promise<LocalTarget> {
  const { files: local } = await publishableFiles(folder)
  folderKind(folder, local, 'model')
  const { files, hashSeconds } = await hash(session, folder, local)
  return { folder, local, hashSeconds, digest: await modelDigest(files), ...(await readLocalModel(folder, local, files)) }
}

export interface PatchInput {
  readonly folder: string
  readonly weight: number
  readonly base: LocalTarget | null
  readonly options: Partial<LayOptions>
}

/** A patch folder laid on the target. Throws where it does not fit. */
export async function readPatch(session: Session, { folder, weight, base, options }: PatchInput, target: LocalTarget): Promise<LocalPatch> {
  const { files: local } = await publishableFiles(folder)
  folderKind(folder, local, 'patch')
  const { files, hashSeconds } = await hash(session, folder, local)
  const manifest = await digestValues(session, folder, await readLocalPatch(folder, local, files))
  const adapter = readAdapter(manifest.adapterConfig, manifest.tensors)
  const [onto, from] = await Promise.all([target, base].map((model) => model && digestOriginals(session, model, adapter)))
  const laid = adapterEdits(adapter, onto!, from, options)
  const reasons = [...laid.reasons, ...checkConsumption(adapter, laid, laid.reasons)]
  const refusals = reasons.filter(({ severity }) => severity === 'refusal')
  if (refusals.length > 0) {
    throw new CliError(EXIT.incompatible, 'incompatible', `${folder} does not fit ${target.folder}:\n${refusals.map((reason) => `  - ${describeReason(reason)}`).join('\n')}`, { details: { reasons: refusals } })
  }
  return { folder, local, weight, digest: await patchDigest(files), manifest, base, edits: laid.edits, untied: laid.untied, hashSeconds, reasons }
}

/** With the digests that ingest computes for every tensor, of those that may be full values: they are told from the base's own. */
async function digestValues(session: Session, folder: string, manifest: PatchManifest): Promise<PatchManifest> {
  const { values, tokens } = readAdapter(manifest.adapterConfig, manifest.tensors)
  const names = new Set([...values, ...tokens].map(({ tensor }) => tensor.name))
  return { ...manifest, tensors: await digestTensors(session, folder, manifest.tensors, ({ name }) => names.has(name)) }
}

/** Likewise for a model's tensors that full values of the adapter stand for. */
async function digestOriginals(session: Session, { folder, manifest }: LocalTarget, { values, tokens }: Adapter): Promise<ModelManifest> {
  if (values.length + tokens.length === 0) return manifest
  const checkpoint = openCheckpoint(manifest)
  const names = new Set([...values.map(({ name }) => name), ...tokens.map(({ module }) => `${module}.weight`)].map((name) => checkpoint.find(name)?.name))
  const isOriginal = ({ name }: ManifestTensor) => names.has(name) || (name.endsWith('.weight') && isVocabularyLayer(name.slice(0, -'.weight'.length)))
  return { ...manifest, tensors: await digestTensors(session, folder, manifest.tensors, isOriginal) }
}

async function digestTensors(session: Session, folder: string, tensors: readonly ManifestTensor[], isWanted: (tensor: ManifestTensor) => boolean): Promise<ManifestTensor[]> {
  const digested: ManifestTensor[] = []
  for (const tensor of tensors) {
    if (!isWanted(tensor)) digested.push(tensor)
    else digested.push({ ...tensor, digest: `sha256:${await hashRange(join(folder, tensor.file), tensor.offset, tensor.offset + tensor.length, session.signal)}` })
  }
  return digested
}

async function hash(session: Session, folder: string, local: readonly LocalFile[]) {
  const start = performance.now()
  const progress = startProgress(`Hashing ${folder}`, 'bytes', session.quiet)
  const files = await digestFiles(folder, local, session.signal, progress).finally(() => progress.stop())
  return { files, hashSeconds: (performance.now() - start) / 1000 }
}
