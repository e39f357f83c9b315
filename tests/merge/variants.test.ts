import { access, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { explainError } from '../../cli/exit.ts'
import { compareVariant, makeVariants, mergeVariant, type Variant, type VariantMerge } from './variants.ts'

/** Where PEFT is wrong, a tensor of its merge is off by at least this part of the patch. */
const WRONG = 0.05

/**
 * In float32 both round every sum to the dtype of the result, and which of the two is luckier is chance; where two
 * contributions meet on one tensor, the sum of them is one rounding more than PEFT has.
 */
const CHANCE = 1.2

/**
 * PEFT's merge with one rounding has the bits of ours, but where its float32 sums, which may add in another order, come to
 * lie on the other side of the middle between two numbers: the truth is there this near to it, in units of what float32
 * arithmetic explains, and this rare it is. PEFT decomposes the base of PiSSA and OLoRA in float32 as well.
 */
const OTHER_SUMS = { crossing: 0.25, share: 1e-3 }
const OTHER_DECOMPOSITION = { crossing: 128, share: 0.1 }

const folder = await mkdtemp(join(tmpdir(), 'portllm-variants-'))
const output = join(folder, 'ours')
const variants = await makeVariants(folder)

afterAll(() => rm(folder, { recursive: true, force: true }))

for (const [name, dtypes] of Map.groupBy(variants, (variant) => variant.name)) {
  describe(`${name}: ${dtypes[0]!.feature}`, () => {
    for (const variant of dtypes) {
      for (const merge of variant.merges) {
        if (variant.refused !== '') it('refused', () => expectRefusal(variant, merge))
        else it(`${variant.dtype}, onto the ${merge.on} model`, () => expectMerge(variant, merge))
      }
    }
  })
}

async function expectMerge(variant: Variant, merge: VariantMerge): Promise<void> {
  const { json, elements, differing, crossings, crossing, unexplained, worse, ourError, peftError, peftWorstTensor } = await compareVariant(variant, merge, output).finally(() => rm(output, { recursive: true, force: true }))
  // The rules compute updates in float32, also for a target in float64, where PEFT computes in float64.
  expect(unexplained, 'elements that rounding does not explain').toBe(0)
  if (variant.warned !== '') expect(json.patches[0].reasons).toContainEqual(expect.objectContaining({ code: variant.warned, severity: 'warning' }))
  expect(peftError === null).toBe(variant.peftRaises !== '')
  if (peftError === null) return
  if (variant.peftIsWrongOn.includes(merge.on)) {
    expect(peftWorstTensor, "PEFT's error").toBeGreaterThan(WRONG)
  } else {
    expect(worse, 'elements farther from the truth than those of PEFT').toBe(0)
    if (crossings !== null) {
      const most = variant.name.startsWith('pissa') || variant.name.startsWith('olora') ? OTHER_DECOMPOSITION : OTHER_SUMS
      expect(crossing, "distance of the truth from the middle where PEFT's bits, rounded once, are not ours").toBeLessThan(most.crossing)
      expect(crossings / elements, 'elements where they are not').toBeLessThan(most.share)
      if (variant.peftRoundsMore !== '') expect(differing! / elements, 'elements that PEFT rounds once more').toBeGreaterThan(0.01)
    }
    if (variant.dtype !== 'f64') expect(ourError).toBeLessThanOrEqual(peftError * (variant.dtype === 'f32' ? CHANCE : 1.001))
  }
}

async function expectRefusal(variant: Variant, merge: VariantMerge): Promise<void> {
  const refused = await mergeVariant(variant, merge, output).then(() => null, (error: unknown) => explainError(error))
  expect(refused, 'merged').not.toBeNull()
  const { code, message, details } = refused!
  const codes = [code, ...((details?.reasons ?? []) as readonly { code: string }[]).map((reason) => reason.code)]
  expect(codes, message).toContain(variant.refused)
  expect(message.length).toBeGreaterThan(20)
  expect(message).not.toMatch(/TypeError|undefined|at .*\.ts:\d+/)
  await expect(access(output)).rejects.toThrow()
}
