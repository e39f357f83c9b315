import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DerivationError, MAX_PATCHES, MAX_WEIGHT, canonicalJson, derivationId, effectiveScale, modelDigest, newDerivation, patchDigest, virtualFileEtag } from './derivation.ts'
import { sampleDigest } from './sample-manifests.ts'

const TARGET = sampleDigest('target')
const PATCH = sampleDigest('patch')

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

describe('derivationId', () => {
  it('is the SHA-256 of the canonical JSON, written out here', async () => {
    const derivation = newDerivation(TARGET, [{ digest: PATCH, weight: 0.5 }])
    const text = `{"dtype":"target","format":"portllm.derivation/1","patches":[{"digest":"${PATCH}","weight":0.5}],"rules":["lora-f32/1"],"target":"${TARGET}"}`
    expect(canonicalJson(derivation)).toBe(text)
    expect(await derivationId(derivation)).toBe(sha256(text))
  })

  it('has bases, options and several rules in it', () => {
    const derivation = newDerivation(TARGET, [{ digest: PATCH, weight: 1, base: TARGET }], { rules: ['absolute-diff/1', 'lora-f32/1'], options: { tied: 'untie' } })
    expect(canonicalJson(derivation)).toBe(`{"dtype":"target","format":"portllm.derivation/1","options":{"tied":"untie"},"patches":[{"base":"${TARGET}","digest":"${PATCH}","weight":1}],"rules":["lora-f32/1","absolute-diff/1"],"target":"${TARGET}"}`)
    expect(() => newDerivation(TARGET, [{ digest: PATCH, weight: 1, base: 'sha256:1' }])).toThrow(DerivationError)
  })

  it('does not depend on the order of keys, and does on that of patches and on weights', async () => {
    const a = { digest: PATCH, weight: 1 }
    const b = { digest: sampleDigest('other'), weight: 1 }
    const ids = await Promise.all([[a, b], [b, a], [a, { ...b, weight: 2 }], [a]].map((patches) => derivationId(newDerivation(TARGET, patches))))
    expect(new Set(ids).size).toBe(4)
    const reversed = Object.fromEntries(Object.entries(newDerivation(TARGET, [a, b])).toReversed())
    expect(await derivationId(reversed as never)).toBe(ids[0])
  })

  it('forgets what else an input carries', async () => {
    const plain = await derivationId(newDerivation(TARGET, [{ digest: PATCH, weight: 1 }]))
    expect(await derivationId(newDerivation(TARGET, [{ digest: PATCH, weight: 1, reference: 'a/b' } as never]))).toBe(plain)
  })
})

describe('newDerivation', () => {
  it.each([
    ['bad-patches', TARGET, []],
    ['bad-patches', TARGET, Array.from({ length: MAX_PATCHES + 1 }, () => ({ digest: PATCH, weight: 1 }))],
    ['bad-digest', 'sha256:1', [{ digest: PATCH, weight: 1 }]],
    ['bad-digest', TARGET, [{ digest: PATCH.toUpperCase(), weight: 1 }]],
    ['bad-weight', TARGET, [{ digest: PATCH, weight: 0 }]],
    ['bad-weight', TARGET, [{ digest: PATCH, weight: -0 }]],
    ['bad-weight', TARGET, [{ digest: PATCH, weight: NaN }]],
    ['bad-weight', TARGET, [{ digest: PATCH, weight: Infinity }]],
    ['bad-weight', TARGET, [{ digest: PATCH, weight: MAX_WEIGHT * 1.001 }]],
  ])('%s', (code, target, patches) => {
    expect(() => newDerivation(target, patches)).toThrow(expect.objectContaining({ name: 'DerivationError', code }))
  })
})

describe('digests of versions', () => {
  const files = [{ path: 'b', size: 2, etag: 'e2' }, { path: 'a', size: 1, etag: 'e1' }]

  it('sort the files by path and name the kind', async () => {
    const text = (kind: string) => `{"files":[{"etag":"e1","path":"a","size":1},{"etag":"e2","path":"b","size":2}],"format":"portllm.${kind}/1"}`
    expect(await modelDigest(files)).toBe(`sha256:${sha256(text('model'))}`)
    expect(await patchDigest(files.toReversed())).toBe(`sha256:${sha256(text('patch'))}`)
  })

  it('keep the id and the path of a virtual file apart', async () => {
    expect(await virtualFileEtag('ab', 'c')).toBe(sha256('ab\nc'))
    expect(await virtualFileEtag('ab', 'c')).not.toBe(await virtualFileEtag('a', 'bc'))
  })
})

describe('effectiveScale', () => {
  it('rounds once, to float32', () => {
    expect(effectiveScale(1, 2)).toBe(2)
    expect(effectiveScale(0.3, 16 / Math.sqrt(7))).toBe(Math.fround(0.3 * (16 / Math.sqrt(7))))
    expect(effectiveScale(0.3, 1 / 3)).not.toBe(Math.fround(Math.fround(0.3) * Math.fround(1 / 3)))
    fc.assert(fc.property(fc.double({ min: 1e-3, max: 100, noNaN: true }), fc.double({ min: 1e-6, max: 1e6, noNaN: true }), (weight, scale) => effectiveScale(-weight, scale) === -Math.fround(weight * scale)))
  })

  it.each([[1, 0], [1, 1e-60], [100, 1e38], [1, NaN], [0, 1], [101, 1]])('refuses %d times %d', (weight, scale) => {
    expect(() => effectiveScale(weight, scale)).toThrow(DerivationError)
  })
})
