import { posix } from 'node:path'
import type { ManifestTensor } from '../../patch/manifest.ts'
import { DuplicateKeyError } from '../../patch/strict-json.ts'
import type { Findings } from './findings.ts'
import { readWeightMap } from './weight-map.ts'

/** Longest index that is read; one of 100,000 tensors has about 10 MB. */
export const MAX_INDEX_BYTES = 16 * 1024 * 1024

export function isShardIndex(path: string): boolean {
  return path.endsWith('.safetensors.index.json')
}

/**
 * What is wrong between a model's safetensors files and their indices, in both directions. A folder with several
 * safetensors files needs an index; every tensor must be in the shard that the index names for it.
 *
 * @param indices text of each index file by its path; null where it could not be read, which was reported already.
 * @param shards paths of the safetensors files.
 */
export function checkShards(indices: ReadonlyMap<string, string | null>, shards: readonly string[], tensors: readonly ManifestTensor[], findings: Findings): void {
  // Within one file its header sees to that.
  if (shards.length > 1) findDuplicates(tensors, findings)
  if (indices.size > 0) checkIndices(indices, shards, tensors, findings)
  const indexed = new Set([...indices.keys()].map((path) => posix.dirname(path)))
  const folders = Map.groupBy(shards, (path) => posix.dirname(path))
  for (const [folder, members] of folders) {
    if (members.length > 1 && !indexed.has(folder)) {
      findings.add({ code: 'missing-index', message: `${folder === '.' ? 'The version' : folder} holds ${members.length} safetensors files but no model.safetensors.index.json that says which tensor is where. Upload the index too.` })
    }
  }
}

function checkIndices(indices: ReadonlyMap<string, string | null>, shards: readonly string[], tensors: readonly ManifestTensor[], findings: Findings): void {
  const places = new Map(shards.map((file) => [file, new Map<string, number>()]))
  for (const [at, { name, file }] of tensors.entries()) places.get(file)?.set(name, at)
  /** Number of the index that places a tensor, from 1 on. */
  const placedBy = new Uint32Array(tensors.length)
  let number = 0
  for (const [path, text] of indices) {
    if (text === null) continue
    number++
    checkIndex(path, text, places, findings, (at) => {
      const isAgain = placedBy[at] === number
      placedBy[at] = number
      return isAgain
    })
  }
  const indexed = new Set([...indices.keys()].map((path) => posix.dirname(path)))
  const unreadable = [...indices.values()].includes(null)
  for (const [at, { name, file }] of tensors.entries()) {
    if (!unreadable && indexed.has(posix.dirname(file)) && placedBy[at] === 0) {
      findings.add({ code: 'index-unlisted-tensor', file, tensor: name, message: `${file} holds the tensor ${name}, which the index of its folder does not place there.` })
    }
  }
}

function findDuplicates(tensors: readonly ManifestTensor[], findings: Findings): void {
  const first = new Map<string, string>()
  for (const { name, file } of tensors) {
    const other = first.get(name)
    if (other === undefined) first.set(name, file)
    else findings.add({ code: 'duplicate-tensor', file, tensor: name, message: `The tensor ${name} is in both ${other} and ${file}.` })
  }
}

/** `place` is told of every tensor that is where the index says, and answers whether it was told before. */
function checkIndex(path: string, text: string, places: ReadonlyMap<string, ReadonlyMap<string, number>>, findings: Findings, place: (at: number) => boolean): void {
  try {
    readWeightMap(text, (name, shard) => {
      const tensors = places.get(fileOf(path, shard))
      const at = tensors?.get(name)
      if (tensors === undefined) {
        findings.add({ code: 'index-missing-file', file: path, tensor: name, message: `${path} places the tensor ${name} in ${shard}, which is not among the uploaded files.` })
      } else if (at === undefined) {
        findings.add({ code: 'index-missing-tensor', file: path, tensor: name, message: `${path} places the tensor ${name} in ${shard}, which does not hold it.` })
      } else if (place(at)) {
        throw new DuplicateKeyError(name)
      }
    })
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof DuplicateKeyError)) throw error
    findings.add({ code: 'bad-index', file: path, message: `${path} is not an index of safetensors shards: ${error.message}.` })
  }
}

/** A name that has to be put in order first, or begins with "/", leads others elsewhere than into the folder. */
function fileOf(index: string, shard: string): string {
  return posix.normalize(shard) === shard && !posix.isAbsolute(shard) ? posix.join(posix.dirname(index), shard) : shard
}
