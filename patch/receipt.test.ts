import { describe, expect, it } from 'vitest'
import { receiptTotals, sampleNames } from './receipt.ts'

describe('receiptTotals', () => {
  it('adds squares over tensors', () => {
    const totals = receiptTotals([{ patchNorm: 3, realisedNorm: 2, residualNorm: 1 }, { patchNorm: 4, realisedNorm: 0, residualNorm: 1 }])
    expect(totals).toEqual({ patchNorm: 5, realisedDelta: 0.4, roundingLoss: Math.SQRT2 / 5 })
  })

  it('has no part of nothing', () => {
    expect(receiptTotals([{ patchNorm: 0, realisedNorm: 0, residualNorm: 0 }])).toEqual({ patchNorm: 0, realisedDelta: null, roundingLoss: null })
  })

  it('takes more tensors than a stack holds', () => {
    const one = { patchNorm: 1, realisedNorm: 1, residualNorm: 0 }
    expect(receiptTotals(Array.from({ length: 250_000 }, () => one)).patchNorm).toBe(500)
  })
})

describe('sampleNames', () => {
  const names = Array.from({ length: 100 }, (_, index) => `tensor-${index}`)

  it('is the same for the same seed, in the order of the names', () => {
    const first = sampleNames(names, 10, 7)
    expect(first).toEqual(sampleNames(names, 10, 7))
    expect(first).toHaveLength(10)
    expect(first).toEqual(names.filter((name) => first.includes(name)))
    expect(sampleNames(names, 10, 8)).not.toEqual(first)
  })

  it('is everything where more is asked for', () => {
    expect(sampleNames(names, 1000, 1)).toEqual(names)
  })

  it('leaves no name out for ever', () => {
    const seen = new Set(Array.from({ length: 200 }, (_, seed) => sampleNames(names, 5, seed)).flat())
    expect(seen.size).toBe(100)
  })
})
