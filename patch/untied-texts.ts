import { setJsonMember } from './json-edit.ts'
import type { LayoutInput } from './layout.ts'
import type { ManifestTensor, ModelManifest } from './manifest.ts'
import { parseStrictJson } from './strict-json.ts'

const CONFIG = 'config.json'
const INDEX = /(^|\/)[^/]*\.safetensors\.index\.json$/

/** The files whose text changes where a merge unties the embeddings: the config, and the index of the embedding's folder. */
export function untieTexts({ files, tensors }: ModelManifest, source: string): string[] {
  const file = tensors.find(({ name }) => name === source)?.file ?? ''
  return files.map(({ path }) => path).filter((path) => path === CONFIG || (INDEX.test(path) && folderOf(path) === folderOf(file)))
}

/** The new text of a file of the merged model, or null for one that keeps its own. Throws JsonEditError. */
export function untiedText({ untied, target }: Pick<LayoutInput, 'untied' | 'target'>, path: string, head: Omit<ManifestTensor, 'digest' | 'offset'> | null): string | null {
  if (untied == null || head === null || !untieTexts(target, untied.source).includes(path)) return null
  const text = untied.texts.get(path)
  if (text === undefined) throw new Error(`the text of ${path} is missing`)
  return path === CONFIG ? untiedConfig(text) : extendedIndex(text, head)
}

/** Also for the nested config of the text model, which some classes go by. */
function untiedConfig(text: string): string {
  const config = parseStrictJson(text) as { text_config?: unknown }
  const outer = setJsonMember(text, ['tie_word_embeddings'], 'false')
  return isObject(config.text_config) ? setJsonMember(outer, ['text_config', 'tie_word_embeddings'], 'false') : outer
}

/** The totals that transformers writes grow by the head, where they are there. */
function extendedIndex(text: string, { name, shape, file, length }: Omit<ManifestTensor, 'digest' | 'offset'>): string {
  const { metadata } = parseStrictJson(text) as { metadata?: unknown }
  const listed = setJsonMember(text, ['weight_map', name], JSON.stringify(file.slice(folderOf(file).length)))
  const added = { total_size: length, total_parameters: shape.reduce((product, size) => product * size, 1) }
  return Object.entries(added).reduce((index, [key, count]) => {
    const total = isObject(metadata) ? metadata[key] : undefined
    return Number.isSafeInteger(total) ? setJsonMember(index, ['metadata', key], String((total as number) + count)) : index
  }, listed)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/') + 1)
}
