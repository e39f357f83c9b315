import { sha256Hex, virtualFileEtag } from './derivation.ts'
import { DTYPE_BITS } from './dtype.ts'
import type { Extent, FileExtent } from './extent.ts'
import type { ManifestFile, ManifestTensor, ModelManifest } from './manifest.ts'
import { writeHeader } from './safetensors.ts'
import type { UntiedHead } from './tied-embeddings.ts'
import { untiedText } from './untied-texts.ts'

/** Key of `__metadata__` that names the derivation in a file that a merge has changed. */
export const DERIVATION_METADATA_KEY = 'portllm.derivation'

export class LayoutError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'LayoutError'
  }
}

/** A run of bytes of a merged file before its blobs are known. */
export type Piece =
  | { readonly kind: 'header'; readonly length: number }
  | { readonly kind: 'target'; readonly extents: readonly Extent[] }
  | { readonly kind: 'changed'; readonly tensor: string; readonly length: number }

/** A file that the merge leaves alone: the target's own bytes under the target's own ETag. */
export interface UntouchedFile extends ManifestFile {
  readonly changed: false
  readonly extents: readonly Extent[]
}

/**
 * A safetensors file with changed tensors: a new header, then the target's bytes and new ones. Or a small text that is new
 * as a whole, which then is the header, under the SHA-256 of its content as its ETag.
 */
export interface ChangedFile extends ManifestFile {
  readonly changed: true
  /** The new header, length field included. */
  readonly header: Uint8Array
  /** In the order of the file; their lengths add up to `size`. */
  readonly pieces: readonly Piece[]
}

export type MergedFile = UntouchedFile | ChangedFile

export interface MergedLayout {
  /** In the order of the target's manifest. */
  readonly files: readonly MergedFile[]
  /** Every tensor at its place in the merged files. The digest of a changed tensor is null until the merge has run. */
  readonly tensors: readonly MergedTensor[]
  readonly facts: ModelManifest['facts']
}

export interface MergedTensor extends Omit<ManifestTensor, 'digest'> {
  readonly digest: string | null
}

export interface LayoutInput {
  /** 64 hex digits. */
  readonly derivationId: string
  readonly target: ModelManifest
  /** Extents of each of the target's files, by path. */
  readonly extents: ReadonlyMap<string, readonly Extent[]>
  /** `__metadata__` of the target's safetensors files, by path; needed for those with changed tensors. */
  readonly metadata: ReadonlyMap<string, Readonly<Record<string, string>>>
  /** Names of the tensors that the merge changes, or adds. */
  readonly changed: ReadonlySet<string>
  /** Where the merge unties the embeddings: the head that it adds, and the text of each of `untieTexts`, by path. */
  readonly untied?: (UntiedHead & { readonly texts: ReadonlyMap<string, string> }) | null
}

/**
 * Where every byte of a merged model comes from. Tensors keep their order, so a changed file is its new header, then
 * the target's data with the changed tensors cut out and replaced; a head that is added comes last in the file of the
 * embedding. Throws LayoutError where the target's own extents or manifest do not add up.
 */
export async function layoutMerge(input: LayoutInput): Promise<MergedLayout> {
  const byFile = tensorsByFile(input.target)
  const head = addedHead(input)
  const known = new Set([...input.target.tensors, ...(head === null ? [] : [head])].map((tensor) => tensor.name))
  for (const name of input.changed) {
    if (!known.has(name)) throw new LayoutError(`The target has no tensor ${name}.`)
  }
  const files: MergedFile[] = []
  const moved = new Map<string, number>()
  for (const file of input.target.files) {
    const extents = fileExtents(input, file)
    const tensors = byFile.get(file.path) ?? []
    const added = head?.file === file.path ? head : null
    const text = untiedText(input, file.path, head)
    if (text !== null) {
      files.push(await textFile(file.path, text))
    } else if (added === null && !tensors.some((tensor) => input.changed.has(tensor.name))) {
      files.push({ ...file, changed: false, extents })
    } else {
      const { merged, shift } = await changedFile(input, file, tensors, added, extents)
      files.push(merged)
      moved.set(file.path, shift)
    }
  }
  const tensors = input.target.tensors.map((tensor) => ({
    ...tensor,
    offset: tensor.offset + (moved.get(tensor.file) ?? 0),
    digest: input.changed.has(tensor.name) ? null : tensor.digest,
  }))
  if (head === null) return { files, tensors, facts: input.target.facts }
  const { size } = files.find(({ path }) => path === head.file)!
  return { files, tensors: [...tensors, { ...head, offset: size - head.length, digest: null }], facts: { ...input.target.facts, tieWordEmbeddings: false } }
}

/** The head that is added, beside the embedding that it begins as. */
function addedHead({ target, untied, changed }: LayoutInput): Omit<ManifestTensor, 'digest' | 'offset'> | null {
  if (untied == null) return null
  const source = target.tensors.find(({ name }) => name === untied.source)
  if (source === undefined || !changed.has(untied.name) || target.tensors.some(({ name }) => name === untied.name)) {
    throw new LayoutError(`The head ${untied.name} cannot be added.`)
  }
  const { dtype, shape, file, length } = source
  return { name: untied.name, dtype, shape, file, length }
}

/** Content that is known as a whole, under the ETag of an uploaded file. */
async function textFile(path: string, text: string): Promise<ChangedFile> {
  const header = new TextEncoder().encode(text)
  return { changed: true, path, size: header.length, etag: await sha256Hex(text), header, pieces: [{ kind: 'header', length: header.length }] }
}

function tensorsByFile(target: ModelManifest): Map<string, ManifestTensor[]> {
  const byFile = Map.groupBy(target.tensors, (tensor) => tensor.file)
  for (const tensors of byFile.values()) tensors.sort(inFileOrder)
  return byFile
}

/** Tensors without elements may share an offset with the one after them; they come first, by name. */
function inFileOrder(a: ManifestTensor, b: ManifestTensor): number {
  return a.offset - b.offset || a.length - b.length || (a.name < b.name ? -1 : 1)
}

function fileExtents(input: LayoutInput, file: ManifestFile): readonly Extent[] {
  const extents = input.extents.get(file.path)
  if (extents === undefined) throw new LayoutError(`The extents of ${file.path} are missing.`)
  const length = totalLength(extents)
  if (length !== file.size) throw new LayoutError(`The extents of ${file.path} have ${length} bytes, the file ${file.size}.`)
  return extents
}

async function changedFile(
  input: LayoutInput,
  file: ManifestFile,
  tensors: readonly ManifestTensor[],
  added: Omit<ManifestTensor, 'digest' | 'offset'> | null,
  extents: readonly Extent[],
): Promise<{ merged: ChangedFile; shift: number }> {
  const metadata = input.metadata.get(file.path)
  if (metadata === undefined) throw new LayoutError(`The metadata of ${file.path} is missing.`)
  const dataStart = checkData(file, tensors)
  const header = writeHeader(added === null ? tensors : [...tensors, added], { ...metadata, [DERIVATION_METADATA_KEY]: input.derivationId }, dataStart)
  const pieces: Piece[] = [{ kind: 'header', length: header.length }]
  let copied = dataStart
  for (const tensor of tensors) {
    if (!input.changed.has(tensor.name)) continue
    pushTarget(pieces, extents, copied, tensor.offset)
    pieces.push({ kind: 'changed', tensor: tensor.name, length: tensor.length })
    copied = tensor.offset + tensor.length
  }
  pushTarget(pieces, extents, copied, file.size)
  if (added !== null) pieces.push({ kind: 'changed', tensor: added.name, length: added.length })
  const size = header.length + file.size - dataStart + (added?.length ?? 0)
  const etag = await virtualFileEtag(input.derivationId, file.path)
  return { merged: { changed: true, path: file.path, size, etag, header, pieces }, shift: header.length - dataStart }
}

/** Position of the first data byte, once it is sure that the tensors fill the rest of the file end to end. */
function checkData(file: ManifestFile, tensors: readonly ManifestTensor[]): number {
  const start = tensors[0]?.offset ?? file.size
  let at = start
  for (const tensor of tensors) {
    if (tensor.offset !== at || tensor.length * 8 !== bitLength(tensor)) {
      throw new LayoutError(`The manifest places ${tensor.name} of ${file.path} wrongly.`)
    }
    at += tensor.length
  }
  if (at !== file.size) throw new LayoutError(`The tensors of ${file.path} end at byte ${at}, the file at ${file.size}.`)
  return start
}

function bitLength({ shape, dtype }: ManifestTensor): number {
  return shape.reduce((product, size) => product * size, DTYPE_BITS[dtype])
}

function pushTarget(pieces: Piece[], extents: readonly Extent[], start: number, end: number): void {
  if (end > start) pieces.push({ kind: 'target', extents: sliceExtents(extents, start, end) })
}

/**
 * The extents of a changed file, adjacent ones joined: `header` is the blob of its new header (64 hex digits), `changed`
 * the place of each changed tensor in the merge's plan. Throws LayoutError where a tensor is missing.
 */
export function resolvePieces(pieces: readonly Piece[], { header, changed }: { readonly header: string; readonly changed: ReadonlyMap<string, number> }): FileExtent[] {
  return coalesce(
    pieces.flatMap((piece): readonly FileExtent[] => {
      if (piece.kind === 'target') return piece.extents
      if (piece.kind === 'header') return [{ blob: header, offset: 0, length: piece.length }]
      const tensor = changed.get(piece.tensor)
      if (tensor === undefined) throw new LayoutError(`The place of ${piece.tensor} is missing.`)
      return [{ tensor, blob: null, offset: 0, length: piece.length }]
    }),
  )
}

/** The extents of the bytes from `start` to `end` (exclusive). Throws LayoutError where they do not reach that far. */
export function sliceExtents<E extends FileExtent>(extents: readonly E[], start: number, end: number): E[] {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start) {
    throw new LayoutError(`Bytes ${start} to ${end} are not a range.`)
  }
  const slice: E[] = []
  let position = 0
  for (const extent of extents) {
    const { offset, length } = extent
    const from = Math.max(start, position)
    const to = Math.min(end, position + length)
    if (from < to) slice.push({ ...extent, offset: offset + from - position, length: to - from })
    position += length
    if (position >= end) break
  }
  if (position < end) throw new LayoutError(`The bytes end at ${position}, but the range at ${end}.`)
  return slice
}

/** The same bytes in the fewest extents: neighbours in one blob are joined, empty ones dropped. */
export function coalesce<E extends FileExtent>(extents: readonly E[]): E[] {
  const joined: E[] = []
  for (const extent of extents) {
    const last = joined.at(-1)
    if (extent.length === 0) continue
    if (last !== undefined && !('tensor' in last) && !('tensor' in extent) && last.blob === extent.blob && last.offset + last.length === extent.offset) {
      joined[joined.length - 1] = { ...last, length: last.length + extent.length }
    } else {
      joined.push({ ...extent })
    }
  }
  return joined
}

/** Length in bytes of all extents together. */
export function totalLength(extents: readonly FileExtent[]): number {
  return extents.reduce((sum, extent) => sum + extent.length, 0)
}

/** The manifest of the merged model, once the merge has told the digest of every changed tensor. */
export function mergedManifest(layout: MergedLayout, digests: ReadonlyMap<string, string>): ModelManifest {
  return {
    format: 'portllm.model/1',
    files: layout.files.map(({ path, size, etag }) => ({ path, size, etag })),
    tensors: layout.tensors.map((tensor) => {
      const digest = tensor.digest ?? digests.get(tensor.name)
      if (digest === undefined) throw new LayoutError(`The digest of ${tensor.name} is missing.`)
      return { ...tensor, digest }
    }),
    facts: layout.facts,
  }
}
