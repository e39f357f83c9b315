import { describe, expect, it } from 'vitest'
import { addSums, figuresOf } from './analysis.ts'
import { sampleAnalysis as analysis, sampleSums as sums, sampleTensor as tensor } from './sample-analysis.ts'

describe('figuresOf', () => {
  it('is the eight figures', () => {
    expect(figuresOf(sums())).toEqual({
      relativeDrift: 0.2, patchNorm: 3, patchSpectralNorm: 2, patchOverDrift: 1.5, interference: -0.5,
      seen: { read: { share: 0.25, chance: 0.0625, lift: 4 }, write: { share: 0.125, chance: 0.25, lift: 0.5 } },
      readDrift: 0.25, writeDrift: 0.1, roundingLoss: expect.closeTo(0.1, 12), nonFinite: 0,
      rowMatch: { sampled: 4, elsewhere: 1, same: 0.8, bestOther: 0.25 },
    })
  })

  it('says nothing where there is nothing to divide by', () => {
    const none = figuresOf(sums({ driftSquared: 0, inner: 0, driftReadSquared: 0, driftReadExpected: 0, driftWriteSquared: 0, driftWriteExpected: 0, rowsSampled: 0, sameRowCosine: 0, bestOtherCosine: 0 }))
    expect(none).toMatchObject({ relativeDrift: 0, patchOverDrift: null, interference: null, seen: { read: null, write: null }, readDrift: 0, rowMatch: null })
    expect(figuresOf(addSums([]))).toMatchObject({ relativeDrift: null, patchNorm: 0, roundingLoss: null, writeDrift: null })
  })
})

describe('addSums', () => {
  it('is that of one block-diagonal matrix: squares add up, the largest singular value stays', () => {
    const both = addSums([sums(), sums({ patchSpectral: 5, rowsElsewhere: 3 })])
    expect(both).toMatchObject({ baseSquared: 200, inner: -6, patchSpectral: 5, rowsSampled: 8, rowsElsewhere: 4 })
    expect(figuresOf(both)).toMatchObject({ relativeDrift: 0.2, interference: -0.5 })
  })
})

describe('analysisOf', () => {
  const q = (layer: number) => `model.layers.${layer}.self_attn.q_proj.weight`
  const up = (layer: number) => `model.layers.${layer}.mlp.up_proj.weight`

  it('keeps attention and MLP apart, in each layer and over the model', () => {
    const result = analysis([tensor('model.embed_tokens.weight'), tensor(q(10)), tensor(up(10), sums({ driftSquared: 16 })), tensor(q(2)), tensor(up(2), sums({ driftSquared: 16 }))])
    expect(result.layers.map(({ layer, part, figures }) => [layer, part, figures.relativeDrift])).toEqual([
      [2, 'attention', 0.2], [2, 'mlp', 0.4], [10, 'attention', 0.2], [10, 'mlp', 0.4],
    ])
    expect(result.parts.map(({ part, tensors, figures }) => [part, tensors, figures.relativeDrift])).toEqual([['attention', 2, 0.2], ['mlp', 2, 0.4], ['embeddings', 1, 0.2]])
    expect(result.whole.relativeDrift).toBeCloseTo(Math.sqrt((3 * 4 + 2 * 16) / 500), 12)
    expect(result.tensors.map(({ name, layer, part }) => [name, layer, part])).toEqual([
      ['model.embed_tokens.weight', null, 'embeddings'], [q(10), 10, 'attention'], [up(10), 10, 'mlp'], [q(2), 2, 'attention'], [up(2), 2, 'mlp'],
    ])
  })

  it("keeps an encoder's layers from a decoder's", () => {
    const result = analysis([tensor('encoder.block.0.mlp.wi.weight'), tensor('decoder.block.0.mlp.wi.weight')])
    expect(result.layers.map(({ stack, layer }) => [stack, layer])).toEqual([['decoder.block', 0], ['encoder.block', 0]])
  })

  it('is JSON that says the same when it is read again', () => {
    const result = analysis([tensor(q(0))])
    expect(JSON.parse(JSON.stringify(result))).toEqual(result)
    expect(result.format).toBe('portllm.analysis/1')
  })
})
