import { describe, expect, it } from 'vitest'
import { analysisPicture } from './analysis-picture.ts'
import { sampleAnalysis, sampleSums, sampleTensor } from './sample-analysis.ts'

const q = (layer: number) => `model.layers.${layer}.self_attn.q_proj.weight`
const up = (layer: number) => `model.layers.${layer}.mlp.up_proj.weight`

/** The picture's elements of one kind, as their attributes. */
function elements(svg: string, name: string): Record<string, string>[] {
  return [...svg.matchAll(new RegExp(`<${name}( [^>]*?)/?>`, 'g'))].map(([, attributes]) => Object.fromEntries([...attributes!.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key, value]) => [key, value])))
}

describe('analysisPicture', () => {
  it('has a point for each layer, part and figure, higher where the figure is larger', () => {
    const svg = analysisPicture(sampleAnalysis([0, 1, 2].flatMap((layer) => [sampleTensor(q(layer)), sampleTensor(up(layer), sampleSums({ driftSquared: 4 * (layer + 1) }))])))
    const circles = elements(svg, 'circle')
    expect(circles).toHaveLength(3 * 2 * 3)
    const [attention, mlp] = [circles.slice(0, 3), circles.slice(3, 6)].map((points) => points.map(({ cy }) => Number(cy)))
    expect(new Set(attention).size).toBe(1)
    expect(mlp![0]).toBe(attention![0])
    expect(mlp![1]).toBeLessThan(mlp![0]!)
    expect(mlp![2]).toBeLessThan(mlp![1]!)
    expect(svg).toContain('<title>layer 2: 0.346</title>')
    expect(svg).toContain('3 tensors, drift 20.0%')
  })

  it('is finite and whole where figures are missing, in one layer, and in none', () => {
    const still = sampleSums({ driftSquared: 0, inner: 0, driftReadSquared: 0, driftReadExpected: 0, driftWriteSquared: 0, driftWriteExpected: 0 })
    for (const tensors of [[], [sampleTensor('model.embed_tokens.weight')], [sampleTensor(q(0))], [sampleTensor(q(0), still), sampleTensor(q(7)), sampleTensor(q(8), still)]]) {
      const svg = analysisPicture(sampleAnalysis(tensors))
      expect(svg).not.toMatch(/NaN|undefined|Infinity|null/)
      expect(svg.match(/<[a-z]+/g)!.length).toBe((svg.match(/<\/[a-z]+>/g) ?? []).length + (svg.match(/\/>/g) ?? []).length)
      expect(svg).toContain('not changed by the patch')
    }
    // Without drift there is no interference and no patch over drift: one point of three in the layers 0 and 8.
    const gaps = analysisPicture(sampleAnalysis([sampleTensor(q(0), still), sampleTensor(q(7)), sampleTensor(q(8), still)]))
    expect(elements(gaps, 'circle')).toHaveLength(3 + 1 + 1)
  })

  it('tells the stacks apart, and takes no markup from names', () => {
    const svg = analysisPicture(sampleAnalysis([sampleTensor('encoder.<script>"&.0.mlp.wi.weight'), sampleTensor('decoder.block.0.mlp.wi.weight')]))
    expect(svg).toContain('>encoder.&#60;script&#62;&#34;&#38;</text>')
    expect(svg).toContain('>decoder.block</text>')
    expect(svg).not.toContain('<script')
  })
})
