import pLimit from 'p-limit'
import { MAX_CONFIG_LENGTH } from '../../patch/adapter-config.ts'
import { AdapterError, readAdapter } from '../../patch/adapter.ts'
import { datasetProblems } from '../../patch/dataset-files.ts'
import { FACT_FILES, FactsError, MAX_FACT_FILE_BYTES, modelFacts } from '../../patch/facts.ts'
import { checkPaths } from '../../patch/file-path.ts'
import type { ManifestFile, ManifestTensor } from '../../patch/manifest.ts'
import type { IngestResult, IngestSpec } from '../protocol.ts'
import { releaseMemory } from '../release-memory.ts'
import { Findings } from './findings.ts'
import type { JobContext } from './job-context.ts'
import { scanFile, type ScannedFile } from './scan-file.ts'
import { checkShards, isShardIndex, MAX_INDEX_BYTES } from './shard-index.ts'

const MAX_README_BYTES = 1024 * 1024
/** Files read at the same time; each has about 4 MiB of buffers. */
const FILES_AT_ONCE = 2

const LARGE_FILE_BYTES = 2 * 1024 * 1024

const ADAPTER_CONFIG = 'adapter_config.json'
const ADAPTER_WEIGHTS = 'adapter_model.safetensors'
/** Formats whose loading can run code of the file's author. */
const PICKLES = /\.(bin|pt|pth|ckpt|pkl|pickle|joblib)$/i

/** What was read of an upload. */
interface Upload {
  readonly files: readonly ManifestFile[]
  readonly tensors: readonly ManifestTensor[]
  readonly texts: ReadonlyMap<string, string | null>
}

/**
 * Checks every byte of an uploaded version and describes it. What is wrong with the upload is a rejection with all
 * its reasons; JobFailure is thrown only where the bytes could not be had.
 */
export function runIngest(spec: IngestSpec, context: JobContext): Promise<IngestResult> {
  const isLarge = spec.files.some(({ size }) => size > LARGE_FILE_BYTES)
  // The next job finds the memory as this one did; what little a small one leaves behind, V8 collects in time.
  return ingest(spec, context).finally(() => void (isLarge && setImmediate(releaseMemory)))
}

async function ingest(spec: IngestSpec, context: JobContext): Promise<IngestResult> {
  const findings = checkNames(spec)
  const scanned = await scanFiles(spec, context)
  for (const file of scanned) findings.addAll(file.findings)
  const upload: Upload = {
    files: spec.files.map(({ path, size, sha256 }) => ({ path, size, etag: sha256 })),
    tensors: scanned.flatMap(({ tensors }) => tensors),
    texts: new Map(spec.files.map(({ path }, i) => [path, scanned[i]!.text])),
  }
  const manifest = await DESCRIBE[spec.subject](upload, findings)
  const rejection = findings.list()
  if (manifest === null || rejection.length > 0) return { rejection }
  return { manifest, readme: upload.texts.get('README.md') ?? null }
}

const DESCRIBE = { model: describeModel, patch: describePatch, dataset: describeDataset }

function checkNames({ files }: IngestSpec): Findings {
  const findings = new Findings()
  try {
    checkPaths(files.map(({ path }) => path))
  } catch (error) {
    findings.add({ code: 'bad-path', message: error instanceof Error ? error.message : String(error) })
  }
  for (const { path } of files) {
    if (PICKLES.test(path)) {
      findings.add({ code: 'pickle', file: path, message: `${path} is of a kind that can run code when it is loaded. Save the weights as safetensors and leave this file out.` })
    }
  }
  return findings
}

async function scanFiles({ files }: IngestSpec, { core, signal, report }: JobContext): Promise<ScannedFile[]> {
  const total = files.reduce((sum, { size }) => sum + size, 0)
  let done = 0
  const onBytes = (count: number) => report({ phase: 'verifying', done: (done += count), total, unit: 'bytes' })
  // One file that fails ends the others too.
  const failed = new AbortController()
  const anySignal = AbortSignal.any([signal, failed.signal])
  const limit = pLimit(FILES_AT_ONCE)
  return Promise.all(files.map((file) => limit(async () => {
    try {
      return await scanFile(file, { core, signal: anySignal, onBytes, textCap: textCap(file.path) })
    } catch (error) {
      failed.abort(error)
      throw error
    }
  })))
}

/** How long a file may be whose text is needed; null for the others. */
function textCap(path: string): number | null {
  if (path === 'README.md') return MAX_README_BYTES
  if (path === ADAPTER_CONFIG) return MAX_CONFIG_LENGTH
  if ((FACT_FILES as readonly string[]).includes(path)) return MAX_FACT_FILE_BYTES
  return isShardIndex(path) ? MAX_INDEX_BYTES : null
}

async function describeModel({ files, tensors, texts }: Upload, findings: Findings) {
  const shards = files.map(({ path }) => path).filter((path) => path.endsWith('.safetensors'))
  if (!texts.has('config.json')) findings.add({ code: 'missing-config', message: 'A model needs config.json. Upload the folder as save_pretrained() writes it.' })
  if (shards.length === 0) findings.add({ code: 'no-safetensors', message: 'A model needs its weights as .safetensors files. Save it with save_pretrained(safe_serialization=True).' })
  const indices = new Map([...texts].filter(([path]) => isShardIndex(path)))
  // A shard that could not be read would make every one of its tensors look missing.
  const unread = findings.some(({ code }) => code.startsWith('safetensors-') || code === 'size-mismatch')
  if (!unread) checkShards(indices, shards, tensors, findings)
  try {
    const facts = await modelFacts({
      config: texts.get('config.json') ?? null,
      tokenizerConfig: texts.get('tokenizer_config.json') ?? null,
      chatTemplate: texts.get('chat_template.jinja') ?? null,
      files,
      tensorNames: tensors.map(({ name }) => name),
    })
    return { format: 'portllm.model/1' as const, files, tensors, facts }
  } catch (error) {
    if (!(error instanceof FactsError)) throw error
    findings.add({ code: error.code, file: error.file, message: error.message })
    return null
  }
}

function describePatch({ files, tensors, texts }: Upload, findings: Findings) {
  for (const path of [ADAPTER_CONFIG, ADAPTER_WEIGHTS]) {
    if (!texts.has(path)) findings.add({ code: 'missing-file', file: path, message: `A patch needs ${path}. Upload the folder as PEFT's save_pretrained() writes it.` })
  }
  for (const { path } of files) {
    if (path.endsWith('.safetensors') && path !== ADAPTER_WEIGHTS) {
      findings.add({ code: 'unexpected-weights', file: path, message: `A patch holds its weights in ${ADAPTER_WEIGHTS} alone; leave ${path} out.` })
    }
  }
  const adapterConfig = texts.get(ADAPTER_CONFIG) ?? null
  const unread = findings.some(({ file, code }) => file === ADAPTER_WEIGHTS && (code.startsWith('safetensors-') || code === 'size-mismatch' || code === 'missing-file'))
  if (adapterConfig !== null && !unread) checkAdapter(adapterConfig, tensors.filter(({ file }) => file === ADAPTER_WEIGHTS), findings)
  return adapterConfig === null ? null : { format: 'portllm.patch/1' as const, files, tensors, adapterConfig }
}

function describeDataset({ files }: Upload, findings: Findings) {
  findings.addAll(datasetProblems(files.map(({ path }) => path)))
  return { format: 'portllm.dataset/1' as const, files }
}

/** What cannot be applied is not published. */
function checkAdapter(config: string, tensors: readonly ManifestTensor[], findings: Findings): void {
  try {
    for (const { code, severity, message, remedy, tensor } of readAdapter(config, tensors).reasons) {
      if (severity === 'refusal') findings.add({ code, message: remedy === undefined ? message : `${message} ${remedy}`, ...(tensor === undefined ? {} : { tensor }) })
    }
  } catch (error) {
    if (!(error instanceof AdapterError)) throw error
    const tensor = tensors.find(({ name }) => name === error.where)?.name
    findings.add({ code: error.code, file: tensor === undefined ? ADAPTER_CONFIG : ADAPTER_WEIGHTS, message: error.message, ...(tensor === undefined ? {} : { tensor }) })
  }
}
