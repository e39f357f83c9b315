import { open, type FileHandle } from 'node:fs/promises'
import { AnalysisBuffers, analyzeTensor, type RowSource, type TensorBytes } from '../gpu-runner/analyze-tensor.ts'
import { CoreError, loadCore } from '../gpu-runner/core/core.ts'
import { analysisBytes, planAnalysis, type AnalysisTensor, type StoredRange } from '../patch/analysis-plan.ts'
import { analysisOf, type Analysis, type MeasuredTensor } from '../patch/analysis.ts'
import { CliError, EXIT } from './exit.ts'
import { readPatch, readTarget } from './local-inputs.ts'
import { startProgress } from './progress.ts'
import type { LocalFile } from './publishable-files.ts'
import type { Session } from './session.ts'

export interface AnalysisFolders {
  readonly patch: string
  readonly base: string
  readonly target: string
}

/** Measures a patch folder on a target folder, beside the base folder that it was trained on. Streams; needs no registry. */
export async function analyzeFolders(session: Session, folders: AnalysisFolders): Promise<Analysis> {
  const target = await readTarget(session, folders.target)
  const base = await readTarget(session, folders.base)
  const patch = await readPatch(session, { folder: folders.patch, weight: 1, base, options: {} }, target)
  const plan = planAnalysis({ patch: patch.manifest, base: base.manifest, target: target.manifest, edits: patch.edits })
  const core = await loadCore()
  const started = performance.now()
  const progress = startProgress('Analyzing', 'bytes', session.quiet)
  const total = analysisBytes(plan.tensors)
  const files = new OpenFiles()
  const buffers = new AnalysisBuffers()
  const measured: MeasuredTensor[] = []
  let done = 0
  try {
    for (const tensor of plan.tensors) {
      const bytes = localBytes(tensor, { patch: patch.local, base: base.local, target: target.local, files })
      measured.push(await analyzeTensor(tensor, bytes, { core, buffers, signal: session.signal }, (count) => progress.update((done += count), total)).catch((error: unknown) => {
        throw namingTensor(tensor, error)
      }))
    }
  } finally {
    progress.stop()
    await files.close()
  }
  return analysisOf({
    patch: patch.digest, base: base.digest, target: target.digest, tensors: measured, unmeasured: plan.unmeasured,
    measured: { by: 'local', at: new Date().toISOString(), engine: { name: 'portllm-core', version: core.version, path: core.path }, seconds: (performance.now() - started) / 1000 },
  })
}

interface Places {
  readonly patch: readonly LocalFile[]
  readonly base: readonly LocalFile[]
  readonly target: readonly LocalFile[]
  readonly files: OpenFiles
}

function localBytes({ factors, runs }: AnalysisTensor, { patch, base, target, files }: Places): TensorBytes {
  return {
    factors: () => Promise.all(factors.map(async (factor) => ({ bytes: await files.read(absolute(patch, factor.file), factor), dtype: factor.dtype }))),
    sample: async (run) => Buffer.concat(await Promise.all(runs[run]!.sample.map(({ base: row }) => files.read(absolute(base, row.file), row)))),
    base: (run) => rowSource(files, absolute(base, runs[run]!.base.file), runs[run]!.base),
    target: (run) => rowSource(files, absolute(target, runs[run]!.target.file), runs[run]!.target),
  }
}

function absolute(local: readonly LocalFile[], path: string): string {
  return local.find((file) => file.path === path)!.absolute
}

function rowSource(files: OpenFiles, path: string, { offset }: StoredRange): RowSource {
  let at = offset
  return {
    async fill(target) {
      await files.fill(path, at, target)
      at += target.byteLength
    },
    close: async () => undefined,
  }
}

/** Each file is opened once, however many of its tensors are read. */
class OpenFiles {
  readonly #files = new Map<string, Promise<FileHandle>>()

  /** Fills the buffer with the bytes from `at` on. */
  async fill(path: string, at: number, target: Uint8Array): Promise<void> {
    const opening = this.#files.get(path) ?? open(path, 'r')
    this.#files.set(path, opening)
    const file = await opening
    for (let done = 0; done < target.byteLength; ) {
      const { bytesRead } = await file.read(target, done, target.byteLength - done, at + done)
      if (bytesRead === 0) throw new CliError(EXIT.failure, 'truncated', `${path} became shorter while it was read.`)
      done += bytesRead
    }
  }

  async read(path: string, { offset, length }: Pick<StoredRange, 'offset' | 'length'>): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(length)
    await this.fill(path, offset, bytes)
    return bytes
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#files.values()].map(async (file) => (await file).close()))
  }
}

function namingTensor({ name }: AnalysisTensor, error: unknown): unknown {
  return error instanceof CoreError ? new CliError(EXIT.failure, `core_${error.status}`, `The tensor ${name} cannot be analyzed: ${error.message}.`, { cause: error }) : error
}
