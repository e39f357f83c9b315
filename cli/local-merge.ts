import { constants } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { blockContributions, operandsOf, type LoadedFactor } from '../gpu-runner/core/block-contributions.ts'
import { loadCore, type Allocate, type Core, type MergedFileSpec, type MergeProfile, type Segment } from '../gpu-runner/core/core.ts'
import { derivationId } from '../patch/derivation.ts'
import { DTYPE_BITS } from '../patch/dtype.ts'
import { layoutMerge, type ChangedFile, type LayoutInput, type MergedLayout } from '../patch/layout.ts'
import { planMerge, untiedHead, type StoredBytes, type TensorPlan } from '../patch/merge-plan.ts'
import { mergeRecipe } from '../patch/recipe.ts'
import type { UntiedHead } from '../patch/tied-embeddings.ts'
import { untieTexts } from '../patch/untied-texts.ts'
import type { LocalPatch, LocalTarget } from './local-inputs.ts'
import { openPatches, type OpenPatches } from './open-patches.ts'
import { OWNER_NAME, type OutputFolder } from './output-folder.ts'
import { startProgress } from './progress.ts'
import type { Session } from './session.ts'

export interface LocalMerge {
  readonly target: LocalTarget
  readonly patches: readonly LocalPatch[]
  /** 64 hex digits; the same that a registry gives to a merge of the same files. */
  readonly derivation: string
  readonly plans: readonly TensorPlan[]
  readonly layout: MergedLayout
}

export async function planLocalMerge(target: LocalTarget, patches: readonly LocalPatch[]): Promise<LocalMerge> {
  const derivation = await derivationId(mergeRecipe(target.digest, patches.map((patch) => ({ ...patch, base: patch.base && patch.base.digest }))))
  const plans = planMerge({ target: target.manifest, patches: patches.map((patch) => ({ ...patch, base: patch.base && patch.base.manifest })) })
  const untied = untiedHead(patches)
  const layout = await layoutMerge({
    derivationId: derivation,
    target: target.manifest,
    extents: new Map(target.manifest.files.map(({ path, size }) => [path, [{ blob: path, offset: 0, length: size }]])),
    metadata: new Map([...target.headers].map(([path, { metadata }]) => [path, metadata])),
    changed: new Set(plans.map(({ name }) => name)),
    untied: untied && (await readUntiedTexts(target, untied)),
  })
  return { target, patches, derivation, plans, layout }
}

async function readUntiedTexts({ manifest, local }: LocalTarget, untied: UntiedHead): Promise<NonNullable<LayoutInput['untied']>> {
  const texts = untieTexts(manifest, untied.source).map(async (path) => [path, await readFile(local.find((file) => file.path === path)!.absolute, 'utf8')] as const)
  return { ...untied, texts: new Map(await Promise.all(texts)) }
}

export interface LocalResult {
  readonly bytes: number
  readonly tensors: number
  readonly nonFinite: number
  readonly engine: string
  /** Bytes that the file system shares with the target's files. */
  readonly bytesCloned: number
  readonly merging: MergeProfile
}

/** Writes the merged model into the partial folder: safetensors files through the core, the others as copies. */
export async function writeLocalMerge(session: Session, merge: LocalMerge, folder: OutputFolder): Promise<LocalResult> {
  for (const name of await readdir(folder.partial)) {
    if (name !== OWNER_NAME) await rm(join(folder.partial, name), { recursive: true, force: true })
  }
  const core = await loadCore()
  const sources = new Map(merge.target.local.map((file) => [file.path, file.absolute]))
  const patches = openPatches(merge.patches.map(({ folder, base }) => ({ patch: folder, base: base && base.folder })))
  const progress = startProgress('Merging', 'bytes', session.quiet)
  try {
    const files: MergedFileSpec[] = []
    for (const file of merge.layout.files) {
      session.signal.throwIfAborted()
      const [source, destination] = [sources.get(file.path)!, join(folder.partial, file.path)]
      await mkdir(dirname(destination), { recursive: true })
      const isModelFile = merge.target.headers.has(file.path)
      if (file.changed && !isModelFile) await writeFile(destination, file.header)
      else if (file.changed) files.push({ source, destination, segments: fileSegments(merge, patches, core, file) })
      else if (isModelFile) files.push({ source, destination, segments: [{ kind: 'copy', offset: 0, length: file.size }] })
      else await copyFile(source, destination, constants.COPYFILE_FICLONE)
    }
    const written = await core.writeMergedFiles({ files, figures: 'count', onProgress: (done, total) => progress.update(done, total), signal: session.signal })
    const figures = written.files.flatMap((file) => file.figures)
    return {
      bytes: merge.layout.files.reduce((sum, { size }) => sum + size, 0),
      tensors: merge.plans.length,
      nonFinite: figures.reduce((sum, { nonFinite }) => sum + nonFinite, 0),
      engine: `${core.version} ${core.path}`,
      bytesCloned: written.bytesCloned,
      merging: written.profile,
    }
  } finally {
    progress.stop()
    await patches.close()
  }
}

function fileSegments({ plans }: LocalMerge, patches: OpenPatches, core: Core, file: ChangedFile): Segment[] {
  const byName = new Map(plans.map((plan) => [plan.name, plan]))
  return file.pieces.flatMap((piece): Segment[] => {
    if (piece.kind === 'header') return [{ kind: 'bytes', bytes: file.header }]
    if (piece.kind === 'target') return piece.extents.map(({ offset, length }) => ({ kind: 'copy', offset, length }))
    return tensorSegments(byName.get(piece.tensor)!, patches, core)
  })
}

function tensorSegments({ dtype, cols, source, factors, blocks }: TensorPlan, patches: OpenPatches, core: Core): Segment[] {
  const rowBytes = (cols * DTYPE_BITS[dtype]) / 8
  return blocks.map((block): Segment => {
    const { first, count, contributions } = block
    const offset = source.offset + first * rowBytes
    if (contributions.length === 0) return { kind: 'copy', offset, length: count * rowBytes }
    const contributionsOf = async (allocate: Allocate) => {
      const loaded: LoadedFactor[] = []
      for (const factor of factors) loaded.push(await patches.read(factor, allocate))
      const readBase = async (base: StoredBytes) => (await patches.read(base, Buffer.allocUnsafeSlow)).bytes
      return blockContributions(block, cols, { core, factors: loaded, readBase })
    }
    return { kind: 'merge', offset, dtype, rows: count, cols, contributions: contributionsOf, operands: operandsOf(block).map((bytes) => ({ path: patches.pathOf(bytes), offset: bytes.offset })) }
  })
}
