import { posix } from 'node:path'
import { z } from 'zod'
import type { ManifestTensor } from '../../patch/manifest.ts'
import { parseStrictJson } from '../../patch/strict-json.ts'
import type { Findings } from './findings.ts'

/** Longest index that is read; one of 100,000 tensors has about 10 MB. */
export const MAX_INDEX_BYTES = 16 * 1024 * 1024

const indexFile = z.looseObject({ weight_map: z.record(z.string(), z.string()) })

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
  findDuplicates(tensors, findings)
  const files = new Set(shards)
  const locations = new Map(tensors.map(({ name, file }) => [`${file}\n${name}`, true]))
  const mapped = new Set<string>()
  for (const [path, text] of indices) {
    if (text === null) continue
    const weights = readIndex(path, text, findings)
    for (const [name, shard] of weights) {
      const file = posix.join(posix.dirname(path), shard)
      mapped.add(`${file}\n${name}`)
      if (!files.has(file)) {
        findings.add({ code: 'index-missing-file', file: path, tensor: name, message: `${path} places the tensor ${name} in ${shard}, which is not among the uploaded files.` })
      } else if (!locations.has(`${file}\n${name}`)) {
        findings.add({ code: 'index-missing-tensor', file: path, tensor: name, message: `${path} places the tensor ${name} in ${shard}, which does not hold it.` })
      }
    }
  }
  const indexed = new Set([...indices.keys()].map((path) => posix.dirname(path)))
  const unreadable = [...indices.values()].includes(null)
  for (const { name, file } of tensors) {
    if (!unreadable && indexed.has(posix.dirname(file)) && !mapped.has(`${file}\n${name}`)) {
      findings.add({ code: 'index-unlisted-tensor', file, tensor: name, message: `${file} holds the tensor ${name}, which the index of its folder does not place there.` })
    }
  }
  const folders = Map.groupBy(shards, (path) => posix.dirname(path))
  for (const [folder, members] of folders) {
    if (members.length > 1 && !indexed.has(folder)) {
      findings.add({ code: 'missing-index', message: `${folder === '.' ? 'The version' : folder} holds ${members.length} safetensors files but no model.safetensors.index.json that says which tensor is where. Upload the index too.` })
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

function readIndex(path: string, text: string, findings: Findings): [string, string][] {
  try {
    return Object.entries(indexFile.parse(parseStrictJson(text)).weight_map)
  } catch (error) {
    const why = error instanceof z.ZodError ? 'it has no weight_map from tensor names to file names' : error instanceof Error ? error.message : String(error)
    findings.add({ code: 'bad-index', file: path, message: `${path} is not an index of safetensors shards: ${why}.` })
    return []
  }
}
