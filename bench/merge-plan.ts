import { open, readdir, readFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import type { Allocate, Segment } from '../gpu-runner/core/core.ts'
import type { Contribution } from '../gpu-runner/core/tensor-merge.ts'
import { readAdapter } from '../patch/adapter.ts'
import { effectiveScale } from '../patch/derivation.ts'
import { isMergeable, type MergeableDtype } from '../patch/dtype.ts'
import type { MatrixView } from '../patch/edit.ts'
import { adapterEdits } from '../patch/edits.ts'
import type { ManifestTensor, ModelManifest } from '../patch/manifest.ts'
import { headerLength, parseHeader, type TensorInfo } from '../patch/safetensors.ts'

/** One file of the model and the segments of its merged form. */
export interface PlannedFile {
  readonly path: string
  readonly size: number
  readonly segments: readonly Segment[]
  /** The `merge` segments alone: what a registry stores. */
  readonly changed: readonly Segment[]
}

export interface MergePlan {
  readonly files: readonly PlannedFile[]
  close(): Promise<void>
}

interface OpenFile {
  readonly path: string
  readonly size: number
  readonly dataOffset: number
  readonly tensors: readonly TensorInfo[]
}

/**
 * Plans the merge of one PEFT adapter folder into one model folder, as complete files: the header stays byte for
 * byte, factors are read when their tensor's turn comes. Close the plan when the merge has run.
 */
export async function planMerge(modelFolder: string, adapterFolder: string): Promise<MergePlan> {
  const adapterFile = await open(join(adapterFolder, 'adapter_model.safetensors'), 'r')
  const adapterHeader = await readHeader(adapterFile, 'adapter_model.safetensors')
  const factors = new Map(adapterHeader.tensors.map((tensor) => [tensor.name, tensor]))
  const adapter = readAdapter(await readFile(join(adapterFolder, 'adapter_config.json'), 'utf8'), adapterHeader.tensors)

  const files: OpenFile[] = []
  for (const path of (await readdir(modelFolder)).filter((name) => name.endsWith('.safetensors')).sort()) {
    const file = await open(join(modelFolder, path), 'r')
    files.push(await readHeader(file, path))
    await file.close()
  }
  const { edits, reasons } = adapterEdits(adapter, manifestOf(files))
  const refusals = reasons.filter(({ severity }) => severity === 'refusal')
  if (refusals.length > 0) throw new Error(refusals.map(({ message }) => message).join('\n'))
  const byTarget = new Map(edits.map((edit) => [edit.target, edit]))

  const factor = async ({ tensor, offset, strides }: MatrixView, allocate: Allocate) => {
    const { begin, end, dtype } = factors.get(tensor)!
    const bytes = allocate(end - begin)
    await adapterFile.read(bytes, 0, bytes.length, adapterHeader.dataOffset + begin)
    return { bytes, dtype, offset, strides }
  }
  return {
    files: files.map(({ path, size, dataOffset, tensors }) => {
      const segments: Segment[] = []
      let copiedTo = 0
      for (const { name, dtype, shape, begin, end } of tensors) {
        const edit = byTarget.get(name)
        if (!edit) continue
        if (edit.kind !== 'additive') throw new Error(`${name} has an edit of the kind ${edit.kind}`)
        if (!isMergeable(dtype)) throw new Error(`${name} is ${dtype}`)
        if (dataOffset + begin > copiedTo) segments.push({ kind: 'copy', offset: copiedTo, length: dataOffset + begin - copiedTo })
        const contributions = async (allocate: Allocate): Promise<Contribution[]> => [{
          kind: 'product',
          left: await factor(edit.left, allocate),
          right: await factor(edit.right, allocate),
          rank: edit.rank,
          scale: effectiveScale(1, edit.scale),
        }]
        segments.push({ kind: 'merge', offset: dataOffset + begin, dtype: dtype as MergeableDtype, rows: shape[0]!, cols: shape[1]!, contributions })
        copiedTo = dataOffset + end
      }
      const changed = segments.filter(({ kind }) => kind === 'merge')
      if (copiedTo < size) segments.push({ kind: 'copy', offset: copiedTo, length: size - copiedTo })
      return { path, size, segments, changed }
    }),
    close: () => adapterFile.close(),
  }
}

async function readHeader(file: FileHandle, path: string): Promise<OpenFile> {
  const { size } = await file.stat()
  const first = Buffer.alloc(8)
  await file.read(first, 0, 8, 0)
  const bytes = Buffer.alloc(headerLength(first, size))
  await file.read(bytes, 0, bytes.length, 0)
  return { path, size, ...parseHeader(bytes, size) }
}

function manifestOf(files: readonly OpenFile[]): ModelManifest {
  const tensors = files.flatMap(({ path, dataOffset, tensors: members }) =>
    members.map(({ name, dtype, shape, begin, end }): ManifestTensor => ({ name, dtype, shape, file: path, offset: dataOffset + begin, length: end - begin, digest: '' })))
  return {
    format: 'portllm.model/1',
    files: files.map(({ path, size }) => ({ path, size, etag: '' })),
    tensors,
    facts: {
      modelType: 'llama', architectures: ['LlamaForCausalLM'], tieWordEmbeddings: false, quantization: null,
      layerCount: null, vocabularySize: null, tokenizerDigest: null, chatTemplateDigest: null,
    },
  }
}
