import { expect, it } from 'vitest'
import { compareEvaluations } from './comparison.ts'
import { comparisonPicture } from './comparison-picture.ts'
import { sampleEvaluation, sampleScore } from './sample-evaluations.ts'
import { scoreMatrices } from './score-matrix.ts'

const at = (value: number, changes = {}) => [sampleScore({ value, ...changes })]
const base = sampleEvaluation({ target: '1', scores: at(0.2) })
const evolved = sampleEvaluation({ target: '2', scores: at(0.3) })
const home = sampleEvaluation({ target: '1', patch: ['1.0.0', '1'], scores: at(0.75) })
const ported = sampleEvaluation({ target: '2', patch: ['1.0.0', '1'], scores: at(0.7) })
const retrained = sampleEvaluation({ target: '2', patch: ['2.0.0', '2'], scores: at(0.8) })

it('base, evolved, ported and retrained stand side by side, in this order, whatever the order of the list', () => {
  const [comparison, ...more] = compareEvaluations([retrained, ported, home, evolved, base])
  expect(more).toEqual([])
  expect(comparison).toMatchObject({ patch: 'lab/p@1.0.0', base: 'lab/m@1', target: 'lab/m@2', groups: [{ task: 'boolq', version: '2.0', metric: 'acc' }] })
  expect(comparison!.groups[0]!.bars.map(({ kind, value, subject }) => [kind, value, subject])).toEqual([
    ['base', 0.2, 'lab/m@1'], ['evolved', 0.3, 'lab/m@2'], ['ported', 0.7, 'lab/p@1.0.0 on lab/m@2'], ['retrained', 0.8, 'lab/p@2.0.0 on lab/m@2'],
  ])
})

it('other versions of a task, other shots and other limits are never compared', () => {
  const others = [
    sampleEvaluation({ target: '1', scores: at(0.9, { version: '1.0' }) }), sampleEvaluation({ target: '2', scores: at(0.9), spec: { num_fewshot: 5 } }), sampleEvaluation({ target: '2', scores: at(0.9), spec: { limit: 10 } }),
    sampleEvaluation({ target: '2', scores: at(0.9), spec: { data: 'lab/other' } }), sampleEvaluation({ target: '2', scores: at(0.9, { metric: 'acc_norm' }) }),
  ]
  const [comparison] = compareEvaluations([...others, ported])
  expect(comparison!.groups.map(({ bars }) => bars.map(({ kind, value }) => [kind, value]))).toEqual([[['ported', 0.7]]])
  expect(scoreMatrices([...others, ported])).toHaveLength(1)
})

it('of a patch the greatest version is shown, of an evaluation the newest; what was not ported is no comparison', () => {
  const ten = sampleEvaluation({ target: '2', patch: ['1.10.0', '1'], scores: at(0.72) })
  const nine = sampleEvaluation({ target: '2', patch: ['1.9.0', '1'], scores: at(0.71) })
  const again = sampleEvaluation({ target: '2', patch: ['1.10.0', '1'], scores: at(0.73), spec: { seed: 2 } })
  const [comparison] = compareEvaluations([again, ten, nine, ported])
  expect([comparison!.patch, comparison!.groups[0]!.bars.at(-1)!.value]).toEqual(['lab/p@1.10.0', 0.73])
  expect(compareEvaluations([base, evolved, home, retrained])).toEqual([])
})

it('the matrix has the model alone first and bases first, and prefers the merged model to PEFT', () => {
  const peft = sampleEvaluation({ target: '2', patch: ['1.0.0', '1'], scores: at(0.69), spec: { how: 'peft' } })
  const [matrix, ...more] = scoreMatrices([peft, ported, evolved, home, base, sampleEvaluation({ target: '0', scores: at(0.1) })])
  expect(more).toEqual([])
  expect(matrix!.targets).toEqual(['lab/m@1', 'lab/m@0', 'lab/m@2'])
  expect(matrix!.rows.map(({ patch, cells }) => [patch, ...cells.map((cell) => cell?.value ?? null)])).toEqual([[null, 0.2, 0.1, 0.3], ['lab/p@1.0.0', 0.75, null, 0.7]])
  expect(matrix!.rows[1]!.cells[2]!.how).toBe('merged')
  expect(scoreMatrices([base, evolved])).toEqual([])
})

it('the picture has a bar for each figure with its standard error, and says the same in words', () => {
  const lower = sampleScore({ task: 'wiki<text>', metric: 'perplexity', value: 25, stderr: null, higher_is_better: false })
  const [comparison] = compareEvaluations([base, evolved, retrained, { ...ported, result: { ...ported.result, scores: [...ported.result.scores, lower] } }])
  const svg = comparisonPicture(comparison!)
  expect(svg).toMatch(/^<svg xmlns="http:\/\/www.w3.org\/2000\/svg".*<\/svg>\n$/s)
  expect(svg.match(/<rect [^>]*><title>/g)).toHaveLength(5)
  expect(svg.match(/stroke="#0f172a" fill="none"/g)).toHaveLength(4)
  expect(svg).toContain('base 0.200 ± 0.020, evolved 0.300 ± 0.020, evolved + patch 0.700 ± 0.020, fine-tuned on evolved 0.800 ± 0.020')
  expect(svg).toContain('lower is better')
  expect(svg).not.toMatch(/NaN|undefined|wiki<text>/)
  const heights = [...svg.matchAll(/height="([\d.]+)" fill="#(?:94a3b8|475569|047857|1d4ed8)"><title>lab\/[^:]*: 0/g)].map((match) => Number(match[1]))
  expect(heights).toHaveLength(4)
  expect(heights[3]! / heights[0]!).toBeCloseTo(4, 1)
  expect(comparisonPicture({ ...comparison!, groups: [] })).toContain('Nothing was measured yet')
})
