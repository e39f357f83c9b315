import { describe, expect, it } from 'vitest'
import { derivationId, newDerivation } from './derivation.ts'
import type { AdditiveEdit, DenseEdit, DoraEdit, ReplaceEdit } from './edit.ts'
import { layOptions, mergeRecipe } from './recipe.ts'
import type { LaidPatch } from './recipe.ts'
import { sampleDigest } from './sample-manifests.ts'

const [TARGET, PATCH, BASE] = ['target', 'patch', 'base'].map(sampleDigest) as [string, string, string]
const placed = { target: 'w', rows: { first: 0, count: 4 }, cols: 8, isShared: false, consumes: [] }
const view = { tensor: 'a', offset: 0, strides: [8, 1] } as const
const additive: AdditiveEdit = { ...placed, kind: 'additive', rank: 2, scale: 1, left: view, right: view, initial: null }
const dora: DoraEdit = { ...placed, kind: 'dora', rank: 2, scale: 1, left: view, right: view, magnitude: { tensor: 'm', offset: 0 }, axis: 'rows' }
const run = { tensor: 'v', offset: 0 }
const bias: DenseEdit = { ...placed, kind: 'dense', scale: 1, value: run, base: null }
const replace: ReplaceEdit = { ...placed, kind: 'replace', value: run, base: null }

function patch(changes: Partial<LaidPatch> = {}): LaidPatch {
  return { digest: PATCH, weight: 1, base: BASE, edits: [additive], untied: null, ...changes }
}

describe('mergeRecipe', () => {
  it('of plain patches is what a merge without any registry makes of the same digests', async () => {
    const plain = newDerivation(TARGET, [{ digest: PATCH, weight: 1 }])
    expect(mergeRecipe(TARGET, [patch()])).toEqual(plain)
    expect(await derivationId(mergeRecipe(TARGET, [patch({ base: null })]))).toBe(await derivationId(plain))
  })

  it('names the rules in use, in their own order', () => {
    const rules = (...edits: LaidPatch['edits'][number][]) => mergeRecipe(TARGET, [patch({ edits })]).rules
    expect(rules(dora)).toEqual(['dora-f32/1'])
    expect(rules(bias, dora, additive)).toEqual(['lora-f32/1', 'dora-f32/1', 'absolute-diff/1'])
    expect(rules(replace)).toEqual(['absolute-diff/1'])
    expect(rules({ ...additive, initial: { method: 'olora', base: 'w' } })).toEqual(['lora-f32/1', 'olora-f64/1'])
    expect(mergeRecipe(TARGET, [patch({ edits: [{ ...additive, initial: { method: 'pissa', base: 'w' } }] }), patch({ edits: [dora] })]).rules).toEqual(['lora-f32/1', 'dora-f32/1', 'pissa-f64/1'])
  })

  it('names the base only of patches whose edits depend on it', () => {
    const bases = (...edits: LaidPatch['edits'][number][]) => mergeRecipe(TARGET, [patch({ edits }), patch()]).patches.map(({ base }) => base)
    expect(bases(additive, dora, bias, replace)).toEqual([undefined, undefined])
    expect(bases({ ...bias, base: run })).toEqual([BASE, undefined])
    expect(bases({ ...replace, base: run })).toEqual([BASE, undefined])
    expect(bases({ ...additive, initial: { method: 'pissa', base: 'w' } })).toEqual([BASE, undefined])
  })

  it('keeps what was asked for only where it made a difference, and gives it back', () => {
    const untied = { name: 'lm_head.weight', source: 'w' }
    expect(mergeRecipe(TARGET, [patch({ edits: [{ ...replace, base: run }] })])).not.toHaveProperty('options')
    const recipe = mergeRecipe(TARGET, [patch({ edits: [replace] }), patch({ untied })])
    expect(recipe.options).toEqual({ absolute: 'replace', tied: 'untie' })
    expect(layOptions(recipe)).toEqual({ absolute: 'replace', tied: 'untie' })
    expect(layOptions(mergeRecipe(TARGET, [patch()]))).toEqual({})
  })
})
