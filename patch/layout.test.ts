import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Extent, FileExtent } from './extent.ts'
import { DERIVATION_METADATA_KEY, coalesce, layoutMerge, LayoutError, mergedManifest, resolvePieces, sliceExtents, totalLength } from './layout.ts'
import type { ChangedFile, MergedFile } from './layout.ts'
import type { ManifestTensor, ModelManifest } from './manifest.ts'
import { SAMPLE_FACTS, sampleDigest } from './sample-manifests.ts'
import { headerLength, parseHeader, writeHeader } from './safetensors.ts'
import { virtualFileEtag } from './derivation.ts'

/** Stored blobs, so that a list of extents can be read as the bytes that a client gets. */
type Blobs = Map<string, Uint8Array>
const ID = sampleDigest('derivation').slice(7)

function read(blobs: Blobs, extents: readonly Extent[]): Uint8Array {
  return Buffer.concat(extents.map(({ blob, offset, length }) => {
    const bytes = blobs.get(blob) ?? new Uint8Array()
    expect(offset + length).toBeLessThanOrEqual(bytes.length)
    return bytes.subarray(offset, offset + length)
  }))
}

interface FileRecipe {
  readonly sizes: readonly number[]
  readonly changed: readonly boolean[]
  readonly cuts: readonly number[]
  readonly metadata: Readonly<Record<string, string>>
}

/** A target of one safetensors file per recipe and a config.json, each file cut into extents of several blobs. */
function build(recipes: readonly FileRecipe[]) {
  const blobs: Blobs = new Map()
  const extents = new Map<string, Extent[]>()
  const metadata = new Map<string, Readonly<Record<string, string>>>()
  const bytes = new Map<string, Uint8Array>()
  const tensors: ManifestTensor[] = []
  const changed = new Set<string>()
  recipes.forEach(({ sizes, changed: flags, cuts, metadata: entries }, file) => {
    const path = `model-${file}.safetensors`
    const infos = sizes.map((size, index) => ({ name: `t${file}.${String(index).padStart(3, '0')}`, dtype: 'F16', shape: [size] }) as const)
    const header = writeHeader(infos, entries)
    let offset = header.length
    infos.forEach(({ name, dtype, shape }, index) => {
      const length = 2 * shape[0]
      tensors.push({ name, dtype, shape, file: path, offset, length, digest: sampleDigest(name) })
      if (flags[index]) changed.add(name)
      offset += length
    })
    const data = Uint8Array.from({ length: offset - header.length }, (_, at) => (at * 31 + file * 7) & 0xff)
    const whole = Buffer.concat([header, data])
    bytes.set(path, whole)
    metadata.set(path, entries)
    extents.set(path, store(blobs, path, whole, cuts))
  })
  const config = new TextEncoder().encode('{}')
  bytes.set('config.json', config)
  extents.set('config.json', store(blobs, 'config.json', config, []))
  const files = [...bytes].map(([path, content]) => ({ path, size: content.length, etag: sampleDigest(path).slice(7) }))
  // The manifest's order is not the file's.
  const target: ModelManifest = { format: 'portllm.model/1', files, tensors: tensors.toReversed(), facts: SAMPLE_FACTS }
  return { blobs, bytes, target, input: { derivationId: ID, target, extents, metadata, changed } }
}

function store(blobs: Blobs, path: string, bytes: Uint8Array, cuts: readonly number[]): Extent[] {
  const ends = [...new Set([...cuts.filter((cut) => cut < bytes.length), bytes.length])].sort((a, b) => a - b)
  let start = 0
  return ends.map((end, index) => {
    const blob = sampleDigest(`${path} ${index}`).slice(7)
    // Every part lies somewhere in a larger blob.
    blobs.set(blob, Buffer.concat([new Uint8Array(index), bytes.subarray(start, end), new Uint8Array(3)]))
    const extent = { blob, offset: index, length: end - start }
    start = end
    return extent
  })
}

/** Extents whose changed tensors have these blobs. */
function keptIn(stored: readonly string[], extents: readonly FileExtent[]): Extent[] {
  return extents.map((extent) => ('tensor' in extent ? { blob: stored[extent.tensor]!, offset: extent.offset, length: extent.length } : extent))
}

function newBytes(length: number, name: string): Uint8Array {
  return new Uint8Array(length).fill(0xa0 + name.length)
}

const recipe = fc.integer({ min: 1, max: 8 }).chain((count) =>
  fc.record({
    sizes: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: count, maxLength: count }),
    changed: fc.array(fc.boolean(), { minLength: count, maxLength: count }),
    cuts: fc.array(fc.integer({ min: 1, max: 900 }), { maxLength: 4 }),
    metadata: fc.constantFrom<Record<string, string>>({}, { format: 'pt' }),
  }),
)

/** Lays the merge out and stores what is new, so that every merged file can be read. */
async function merge(recipes: readonly FileRecipe[]) {
  const built = build(recipes)
  const layout = await layoutMerge(built.input)
  const digests = new Map<string, string>()
  const files = layout.files.map((file) => {
    if (!file.changed) return { file, extents: file.extents }
    const header = sampleDigest(`header ${file.path}`).slice(7)
    built.blobs.set(header, file.header)
    const stored: string[] = []
    const changed = new Map(file.pieces.flatMap((piece) => {
      if (piece.kind !== 'changed') return []
      const blob = sampleDigest(`new ${piece.tensor}`).slice(7)
      built.blobs.set(blob, newBytes(piece.length, piece.tensor))
      digests.set(piece.tensor, `sha256:${blob}`)
      return [[piece.tensor, stored.push(blob) - 1] as const]
    }))
    const extents = resolvePieces(file.pieces, { header, changed })
    return { file, extents: keptIn(stored, extents) }
  })
  return { ...built, layout, files, digests }
}

describe('layoutMerge', () => {
  it('gives files that parse, with the changed tensors new and every other byte the target\'s', async () => {
    await fc.assert(fc.asyncProperty(fc.array(recipe, { minLength: 1, maxLength: 3 }), async (recipes) => {
      const { blobs, bytes, files, layout, target, input, digests } = await merge(recipes)
      const manifest = mergedManifest(layout, digests)
      for (const { file, extents } of files) {
        const merged = read(blobs, extents)
        const original = bytes.get(file.path) ?? new Uint8Array()
        expect(merged.length).toBe(file.size)
        if (!file.changed) {
          expect(file).toMatchObject(target.files.find(({ path }) => path === file.path) ?? {})
          expect(Buffer.compare(merged, original)).toBe(0)
          continue
        }
        expect(file.etag).toBe(await virtualFileEtag(ID, file.path))
        const header = parseHeader(merged.subarray(0, headerLength(merged.subarray(0, 8), merged.length)), merged.length)
        // A file system can then share the blocks of what does not change.
        const [oldStart, newStart] = [target, manifest].map(({ tensors }) => Math.min(...tensors.flatMap((tensor) => (tensor.file === file.path ? [tensor.offset] : []))))
        expect((newStart! - oldStart!) % 4096).toBe(0)
        expect(header.metadata).toEqual({ ...input.metadata.get(file.path), [DERIVATION_METADATA_KEY]: ID })
        for (const tensor of header.tensors) {
          const old = target.tensors.find(({ name }) => name === tensor.name)
          const now = manifest.tensors.find(({ name }) => name === tensor.name)
          const content = merged.subarray(header.dataOffset + tensor.begin, header.dataOffset + tensor.end)
          const expected = input.changed.has(tensor.name) ? newBytes(content.length, tensor.name) : original.subarray(old?.offset, (old?.offset ?? 0) + content.length)
          expect(Buffer.compare(content, expected)).toBe(0)
          expect(now).toMatchObject({ offset: header.dataOffset + tensor.begin, length: content.length, dtype: old?.dtype, shape: old?.shape })
          expect(now?.digest).toBe(input.changed.has(tensor.name) ? digests.get(tensor.name) : old?.digest)
        }
      }
    }), { numRuns: 150 })
  })

  it('gives the same bytes for every range as the whole file has there', async () => {
    await fc.assert(fc.asyncProperty(recipe, fc.nat(), fc.nat(), async (one, first, second) => {
      const { blobs, files } = await merge([{ ...one, changed: one.changed.map((_, index) => index % 2 === 0) }])
      const extents = files[0]?.extents ?? []
      const whole = read(blobs, extents)
      const [start, end] = [first % (whole.length + 1), second % (whole.length + 1)].sort((a, b) => a - b) as [number, number]
      const part = sliceExtents(extents, start, end)
      expect(totalLength(part)).toBe(end - start)
      expect(Buffer.compare(read(blobs, part), whole.subarray(start, end))).toBe(0)
    }), { numRuns: 200 })
  })

  it('reads from new blobs only the header and the changed tensors', async () => {
    const { files, target } = await merge([{ sizes: [4, 4, 4, 4], changed: [false, true, false, false], cuts: [], metadata: {} }])
    const [merged] = files
    expect(merged?.extents.map(({ length }) => length)).toEqual([expect.any(Number), 8, 8, 16])
    expect(merged?.file.size).toBeGreaterThan(target.files[0]?.size ?? 0)
  })

  it('is deterministic', async () => {
    const recipes = [{ sizes: [4, 0, 4], changed: [true, false, true], cuts: [7], metadata: { format: 'pt' } }]
    expect(await layoutMerge(build(recipes).input)).toEqual(await layoutMerge(build(recipes).input))
  })

  it('refuses what does not add up', async () => {
    const recipes = [{ sizes: [4, 4], changed: [true, false], cuts: [], metadata: {} }]
    const { input } = build(recipes)
    const [tensor] = input.target.tensors
    const wrong = (changes: object) => layoutMerge({ ...input, ...changes })
    await expect(wrong({ extents: new Map() })).rejects.toThrow(LayoutError)
    await expect(wrong({ metadata: new Map() })).rejects.toThrow(LayoutError)
    await expect(wrong({ changed: new Set(['absent']) })).rejects.toThrow(LayoutError)
    await expect(wrong({ extents: new Map([...input.extents].map(([path, list]) => [path, list.map((extent) => ({ ...extent, length: extent.length + 1 }))])) })).rejects.toThrow(LayoutError)
    for (const change of [{ offset: (tensor?.offset ?? 0) + 2 }, { length: 6 }, { shape: [5] }]) {
      const tensors = input.target.tensors.map((each) => (each === tensor ? { ...each, ...change } : each))
      await expect(wrong({ target: { ...input.target, tensors } })).rejects.toThrow(LayoutError)
    }
    const layout = await layoutMerge(input)
    expect(() => mergedManifest(layout, new Map())).toThrow(LayoutError)
    const file = layout.files.find((each) => each.changed)
    expect(() => resolvePieces(file?.changed ? file.pieces : [], { header: 'h', changed: new Map() })).toThrow(LayoutError)
  })
})

describe('extents', () => {
  it('are joined where they continue each other', () => {
    const extents = [{ blob: 'a', offset: 0, length: 4 }, { blob: 'a', offset: 4, length: 2 }, { blob: 'b', offset: 6, length: 0 }, { blob: 'a', offset: 6, length: 1 }, { blob: 'a', offset: 9, length: 1 }, { blob: 'b', offset: 10, length: 1 }]
    expect(coalesce(extents)).toEqual([{ blob: 'a', offset: 0, length: 7 }, { blob: 'a', offset: 9, length: 1 }, { blob: 'b', offset: 10, length: 1 }])
  })

  it('of changed tensors are sliced, and joined with nothing', () => {
    const extents: FileExtent[] = [{ tensor: 0, blob: null, offset: 0, length: 4 }, { tensor: 0, blob: 'a', offset: 4, length: 4 }, { blob: 'a', offset: 8, length: 2 }]
    expect(coalesce(extents)).toEqual(extents)
    expect(sliceExtents(extents, 1, 6)).toEqual([{ tensor: 0, blob: null, offset: 1, length: 3 }, { tensor: 0, blob: 'a', offset: 4, length: 2 }])
  })

  it.each([[0, 5], [-1, 2], [3, 2], [0.5, 2]])('refuse the range %i to %i of four bytes', (start, end) => {
    expect(() => sliceExtents([{ blob: 'a', offset: 0, length: 4 }], start, end)).toThrow(LayoutError)
  })
})

describe('untied embeddings', () => {
  const shapes = [{ name: 'embed.weight', dtype: 'F16', shape: [2, 3] }, { name: 'norm.weight', dtype: 'F16', shape: [3] }] as const
  const header = writeHeader(shapes)
  const file = Buffer.concat([header, Uint8Array.from({ length: 18 }, (_, at) => at)])
  const texts = new Map([
    ['config.json', '{\n  "tie_word_embeddings": true,\n  "text_config": {"rope_theta": 10000.0}\n}'],
    ['model.safetensors.index.json', '{"metadata": {"total_parameters": 9, "total_size": 18}, "weight_map": {"embed.weight": "model.safetensors", "norm.weight": "model.safetensors"}}'],
  ])
  const contents = new Map<string, Uint8Array>([['model.safetensors', file], ...[...texts].map(([path, text]) => [path, Buffer.from(text)] as const), ['other/model.safetensors.index.json', Buffer.from('{}')]])
  const target: ModelManifest = {
    format: 'portllm.model/1', files: [...contents].map(([path, { length }]) => ({ path, size: length, etag: sampleDigest(path).slice(7) })), facts: { ...SAMPLE_FACTS, tieWordEmbeddings: true },
    tensors: [{ ...shapes[0], file: 'model.safetensors', offset: header.length, length: 12, digest: 'a' }, { ...shapes[1], file: 'model.safetensors', offset: header.length + 12, length: 6, digest: 'b' }],
  }
  const input = {
    derivationId: ID, target, extents: new Map([...contents].map(([path, { length }]) => [path, [{ blob: path, offset: 0, length }]])), metadata: new Map([['model.safetensors', {}]]),
    changed: new Set(['lm_head.weight']), untied: { name: 'lm_head.weight', source: 'embed.weight', texts },
  }

  it('have a head of their own, last in the file of the embedding', async () => {
    const layout = await layoutMerge(input)
    const merged = layout.files[0] as ChangedFile
    const blobs: Blobs = new Map([...contents, ['header', merged.header], ['head', Uint8Array.from({ length: 12 }, () => 7)]])
    const bytes = read(blobs, keptIn(['head'], resolvePieces(merged.pieces, { header: 'header', changed: new Map([['lm_head.weight', 0]]) })))
    expect(bytes.length).toBe(merged.size)
    const { tensors, dataOffset } = parseHeader(bytes, bytes.length)
    expect(tensors.map(({ name, shape }) => [name, shape])).toEqual([['embed.weight', [2, 3]], ['norm.weight', [3]], ['lm_head.weight', [2, 3]]])
    expect(bytes.subarray(dataOffset, dataOffset + 18)).toEqual(file.subarray(header.length))
    expect([...bytes.subarray(dataOffset + 18)]).toEqual(Array(12).fill(7))
    expect(merged.etag).toBe(await virtualFileEtag(ID, 'model.safetensors'))
    const manifest = mergedManifest(layout, new Map([['lm_head.weight', 'c']]))
    expect(manifest.facts.tieWordEmbeddings).toBe(false)
    expect(manifest.tensors.at(-1)).toEqual({ name: 'lm_head.weight', dtype: 'F16', shape: [2, 3], file: 'model.safetensors', offset: dataOffset + 18, length: 12, digest: 'c' })
  })

  it('are written into the config and the index, whose ETag is that of their content', async () => {
    const [, config, index, other] = (await layoutMerge(input)).files as [MergedFile, ChangedFile, ChangedFile, MergedFile]
    const textOf = ({ header: bytes }: ChangedFile) => new TextDecoder().decode(bytes)
    expect(textOf(config)).toBe('{\n  "tie_word_embeddings": false,\n  "text_config": {"tie_word_embeddings": false, "rope_theta": 10000.0}\n}')
    expect(JSON.parse(textOf(index))).toEqual({ metadata: { total_parameters: 15, total_size: 30 }, weight_map: { 'lm_head.weight': 'model.safetensors', 'embed.weight': 'model.safetensors', 'norm.weight': 'model.safetensors' } })
    expect(config).toMatchObject({ changed: true, size: textOf(config).length, etag: createHash('sha256').update(textOf(config)).digest('hex'), pieces: [{ kind: 'header', length: textOf(config).length }] })
    expect(other).toMatchObject({ changed: false })
  })

  it('cannot be made twice, nor of nothing', async () => {
    await expect(layoutMerge({ ...input, untied: { ...input.untied, name: 'norm.weight' }, changed: new Set(['norm.weight']) })).rejects.toThrow(LayoutError)
    await expect(layoutMerge({ ...input, untied: { ...input.untied, source: 'none' } })).rejects.toThrow(LayoutError)
    await expect(layoutMerge({ ...input, changed: new Set() })).rejects.toThrow(LayoutError)
  })
})
