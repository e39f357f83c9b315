import { readFile } from 'node:fs/promises'
import { Findings } from '../gpu-runner/jobs/findings.ts'
import { checkShards, isShardIndex, MAX_INDEX_BYTES } from '../gpu-runner/jobs/shard-index.ts'
import { MAX_CONFIG_LENGTH } from '../patch/adapter-config.ts'
import { FACT_FILES, MAX_FACT_FILE_BYTES, modelFacts } from '../patch/facts.ts'
import type { ManifestFile, ManifestTensor, ModelManifest, PatchManifest } from '../patch/manifest.ts'
import type { SafetensorsHeader } from '../patch/safetensors.ts'
import { CliError, EXIT } from './exit.ts'
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS } from './folder-kind.ts'
import type { LocalFile } from './publishable-files.ts'
import { readSafetensorsHeader } from './safetensors-file.ts'

export interface LocalModel {
  readonly manifest: ModelManifest
  /** Headers of its safetensors files, by path. */
  readonly headers: ReadonlyMap<string, SafetensorsHeader>
}

/**
 * The manifest of a model folder from its headers and JSON files alone: tensors are not read, so their digests are
 * empty. Throws what ingest would reject: unsound files, tensors named twice, an index that does not fit.
 */
export async function readLocalModel(folder: string, local: readonly LocalFile[], files: readonly ManifestFile[]): Promise<LocalModel> {
  const headers = new Map<string, SafetensorsHeader>()
  for (const { path, absolute } of local) {
    if (path.endsWith('.safetensors')) headers.set(path, await readSafetensorsHeader(absolute))
  }
  const tensors = [...headers].flatMap(([path, header]) => headerTensors(path, header))
  await checkIndices(folder, local, tensors)
  const [config, tokenizerConfig, chatTemplate] = await Promise.all(FACT_FILES.map((name) => readText(local, name, MAX_FACT_FILE_BYTES)))
  const facts = await modelFacts({ config: config!, tokenizerConfig, chatTemplate, files, tensorNames: tensors.map(({ name }) => name) })
  return { manifest: { format: 'portllm.model/1', files, tensors, facts }, headers }
}

/** The manifest of a patch folder, likewise. */
export async function readLocalPatch(folder: string, local: readonly LocalFile[], files: readonly ManifestFile[]): Promise<PatchManifest> {
  const weights = local.find(({ path }) => path === ADAPTER_WEIGHTS)
  const adapterConfig = await readText(local, ADAPTER_CONFIG, MAX_CONFIG_LENGTH)
  if (weights === undefined || adapterConfig === null) throw new CliError(EXIT.failure, 'missing_file', `${folder} needs both ${ADAPTER_CONFIG} and ${ADAPTER_WEIGHTS}.`)
  return { format: 'portllm.patch/1', files, tensors: headerTensors(ADAPTER_WEIGHTS, await readSafetensorsHeader(weights.absolute)), adapterConfig }
}

function headerTensors(file: string, { dataOffset, tensors }: SafetensorsHeader): ManifestTensor[] {
  return tensors.map(({ name, dtype, shape, begin, end }) => ({ name, dtype, shape, file, offset: dataOffset + begin, length: end - begin, digest: '' }))
}

/** The rules of ingest: every tensor once, and where an index says that it is. */
async function checkIndices(folder: string, local: readonly LocalFile[], tensors: readonly ManifestTensor[]): Promise<void> {
  const indices = new Map<string, string | null>()
  for (const { path } of local) {
    if (isShardIndex(path)) indices.set(path, await readText(local, path, MAX_INDEX_BYTES))
  }
  const shards = local.filter(({ path }) => path.endsWith('.safetensors')).map(({ path }) => path)
  const findings = new Findings()
  checkShards(indices, shards, tensors, findings)
  const [first, ...others] = findings.list()
  if (first === undefined) return
  throw new CliError(EXIT.failure, first.code, `${folder}: ${first.message}${others.length === 0 ? '' : ` ${others.length} more like it.`} Is a shard missing, or left over from an earlier save?`, { details: { findings: [first, ...others].slice(0, 100) } })
}

async function readText(local: readonly LocalFile[], name: string, cap: number): Promise<string | null> {
  const file = local.find(({ path }) => path === name)
  if (file === undefined) return null
  if (file.size > cap) throw new CliError(EXIT.failure, 'file_too_large', `${file.absolute} has ${file.size} bytes; at most ${cap} are read.`)
  return readFile(file.absolute, 'utf8')
}
