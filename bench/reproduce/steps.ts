import { canonicalJson, sha256Hex } from '../../patch/derivation.ts'
import type { Plan } from './plan.ts'

/** `model` and `from` count evolutions: 0 is the pretrained model. */
export type StepWork =
  | { readonly kind: 'data' }
  /** Makes the model of that number from the one before. */
  | { readonly kind: 'evolve'; readonly model: number; readonly text: string; readonly characters: number }
  /** Scores a model on all tasks, without a patch. */
  | { readonly kind: 'alone'; readonly model: number }
  | { readonly kind: 'finetune'; readonly task: string; readonly seed: number; readonly model: number }
  /** Merges the patch that was trained on model `from` onto a model, and scores what comes out. */
  | { readonly kind: 'score'; readonly task: string; readonly seed: number; readonly from: number; readonly model: number }
  /** Measures the patch that was trained on model 0 on a later one. */
  | { readonly kind: 'analyze'; readonly task: string; readonly seed: number; readonly model: number }

export type StepKind = StepWork['kind']

export interface Step {
  readonly id: string
  readonly work: StepWork
  readonly inputs: readonly Step[]
  /** SHA-256 in hex of all that the result depends on: settings, and the inputs' own. */
  readonly key: string
}

/**
 * All steps of a plan, each after its inputs, in an order in which what has been done so far says something: with the
 * first seed, model after model of the chain, every task ported to it and then trained afresh on it; then the other seeds.
 */
export async function planSteps(plan: Plan): Promise<Step[]> {
  const steps = new Map<string, Step>()

  async function step(work: StepWork, settings: unknown, inputs: readonly Step[]): Promise<Step> {
    const id = stepId(work)
    const known = steps.get(id)
    if (known !== undefined) return known
    const key = await sha256Hex(canonicalJson({ format: plan.format, work, settings, inputs: inputs.map((input) => input.key) }))
    const made: Step = { id, work, inputs, key }
    steps.set(id, made)
    return made
  }

  const data = () => step({ kind: 'data' }, { model: plan.model, tasks: plan.tasks, evolutions: plan.evolutions }, [])
  const model = async (number: number): Promise<Step> => {
    if (number === 0) return data()
    const { text, characters } = plan.evolutions[number - 1]!
    return step({ kind: 'evolve', model: number, text, characters }, plan.evolve, [await data(), await model(number - 1)])
  }
  const alone = async (number: number) => step({ kind: 'alone', model: number }, plan.evaluate, [await data(), await model(number)])
  const finetune = async (task: string, seed: number, number: number) => step({ kind: 'finetune', task, seed, model: number }, plan.finetune, [await data(), await model(number)])
  const score = async (task: string, seed: number, from: number, number: number) => step({ kind: 'score', task, seed, from, model: number }, plan.evaluate, [await data(), await model(number), await finetune(task, seed, from)])
  const analyze = async (task: string, seed: number, number: number) => step({ kind: 'analyze', task, seed, model: number }, null, [await model(0), await model(number), await finetune(task, seed, 0)])

  const tasks = Object.keys(plan.tasks)
  for (const seed of plan.seeds) {
    for (let number = 0; number <= plan.evolutions.length; number++) {
      await alone(number)
      for (const task of tasks) {
        await score(task, seed, 0, number)
        if (number > 0) await analyze(task, seed, number)
      }
      for (const task of number > 0 ? tasks : []) await score(task, seed, number, number)
    }
  }
  return [...steps.values()]
}

function stepId(work: StepWork): string {
  switch (work.kind) {
    case 'data': return 'data'
    case 'evolve': case 'alone': return `${work.kind}/${work.model}`
    case 'finetune': return `finetune/${work.task}/seed-${work.seed}/on-${work.model}`
    case 'score': return `score/${work.task}/seed-${work.seed}/from-${work.from}/onto-${work.model}`
    case 'analyze': return `analyze/${work.task}/seed-${work.seed}/onto-${work.model}`
  }
}

/** What a step does, in words. */
export function describeStep(work: StepWork): string {
  const named = (model: number) => (model === 0 ? 'the pretrained model' : `evolution ${model}`)
  switch (work.kind) {
    case 'data': return 'downloading and preparing the data'
    case 'evolve': return `evolving ${named(work.model - 1)} on ${work.text}`
    case 'alone': return `scoring ${named(work.model)} alone`
    case 'finetune': return `fine-tuning ${work.task} on ${named(work.model)}, seed ${work.seed}`
    case 'score': return `merging and scoring ${work.task}, seed ${work.seed}, from ${named(work.from)} onto ${named(work.model)}`
    case 'analyze': return `analyzing ${work.task}, seed ${work.seed}, on ${named(work.model)}`
  }
}
