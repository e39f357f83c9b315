import { expect, test } from 'vitest'
import { PLANS, type Plan } from './plan.ts'
import { planSteps } from './steps.ts'

const SMALL = PLANS.small

async function keys(plan: Plan): Promise<Map<string, string>> {
  return new Map((await planSteps(plan)).map(({ id, key }) => [id, key]))
}

/** Ids of the steps that both plans have and whose keys differ. */
async function changed(plan: Plan): Promise<string[]> {
  const [before, after] = [await keys(SMALL), await keys(plan)]
  return [...before].filter(([id, key]) => after.has(id) && after.get(id) !== key).map(([id]) => id)
}

test('every step comes after its inputs', async () => {
  const seen = new Set<string>()
  for (const { id, inputs } of await planSteps(SMALL)) {
    expect(inputs.filter((input) => !seen.has(input.id)).map((input) => `${id} before ${input.id}`)).toEqual([])
    seen.add(id)
  }
})

test('every task, seed and model is scored alone, ported and afresh, and every port is analyzed', async () => {
  const ids = new Set((await planSteps(SMALL)).map(({ id }) => id))
  for (const task of Object.keys(SMALL.tasks)) {
    for (const seed of SMALL.seeds) {
      for (const model of [0, 1, 2, 3, 4]) {
        expect(ids).toContain(`alone/${model}`)
        expect(ids).toContain(`score/${task}/seed-${seed}/from-0/onto-${model}`)
        expect(ids).toContain(`score/${task}/seed-${seed}/from-${model}/onto-${model}`)
        if (model > 0) expect(ids).toContain(`analyze/${task}/seed-${seed}/onto-${model}`)
      }
    }
  }
  // data, 4 evolutions, 5 alone; for each task and seed 5 trainings, 9 scores and 4 analyses.
  expect(ids.size).toBe(10 + 4 * 2 * 18)
})

test('the first seed is done on all tasks, model after model of the chain, before the second one begins', async () => {
  const ids = (await planSteps(SMALL)).map(({ id }) => id)
  const second = ids.findIndex((id) => id.includes('seed-2'))
  expect(ids.slice(second).filter((id) => id.includes('seed-1'))).toEqual([])
  expect(ids.indexOf('score/kinds/seed-1/from-0/onto-1')).toBeLessThan(ids.indexOf('finetune/spam/seed-1/on-1'))
  expect(ids.indexOf('score/kinds/seed-1/from-1/onto-1')).toBeLessThan(ids.indexOf('evolve/2'))
})

test('another seed leaves what was done for the others as it is', async () => {
  expect(await changed({ ...SMALL, seeds: [1, 7] })).toEqual([])
})

test('a setting changes the steps that depend on it, and no others', async () => {
  const trained = await changed({ ...SMALL, finetune: { ...SMALL.finetune, rank: 16 } })
  expect(new Set(trained.map((id) => id.split('/')[0]))).toEqual(new Set(['finetune', 'score', 'analyze']))
  const evolved = await changed({ ...SMALL, evolutions: SMALL.evolutions.map((evolution, index) => (index === 3 ? { ...evolution, characters: 1 } : evolution)) })
  expect(evolved).toContain('evolve/4')
  const rate = await changed({ ...SMALL, evolve: { ...SMALL.evolve, learning_rate: 1 } })
  expect(rate).not.toContain('finetune/spam/seed-1/on-0')
  expect(rate).toContain('finetune/spam/seed-1/on-1')
  expect(rate).toContain('analyze/spam/seed-1/onto-1')
})
