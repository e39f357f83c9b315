import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Command } from 'commander'
import { addMerge } from '../../cli/commands/merge.ts'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { ROOT } from '../setup/registry.ts'
import { differingElements, readFolder, readTensors, ulp, valuesOf, type StoredTensor, type StoredTensors } from './stored-tensors.ts'

/** One variety of adapter on one model in one dtype; see tests/python/make_variants.py. */
export interface Variant {
  readonly name: string
  readonly feature: string
  readonly dtype: string
  /** Code of the reason for which it must be refused; empty where it must be merged. */
  readonly refused: string
  /** Code of the reason of which a merge must warn; empty for none. */
  readonly warned: string
  /** What PEFT rounds once more, so that its bits are not ours. */
  readonly peftRoundsMore: string
  readonly peftIsWrong: string
  readonly peftIsWrongOn: readonly ('base' | 'evolved')[]
  readonly peftRaises: string
  readonly options: readonly string[]
  readonly adapters: readonly (readonly [folder: string, weight: number])[]
  readonly merges: readonly VariantMerge[]
}

export interface VariantMerge {
  /** Whether the adapter goes onto the base that it was trained on, or onto an evolved version of it. */
  readonly on: 'base' | 'evolved'
  readonly model: string
  readonly peft: string | null
  /**
   * In float16 and bfloat16, where PEFT is right: its merge with one rounding, at the end. It is its own, or where that
   * rounds more than once the one of the same weights in float32.
   */
  readonly peftRoundedOnce: string | null
  readonly truth: string | null
}

/** How ours and PEFT's merge stand to the truth, over all tensors that change. */
export interface Comparison {
  readonly elements: number
  /** Elements whose bits are not PEFT's; null where there is no merge of PEFT's. */
  readonly differing: number | null
  /**
   * Elements whose bits are not those of `peftRoundedOnce`, and how far there, at most, the truth is from the middle between
   * the two, in units of what float32 arithmetic explains. Null where there is no such merge.
   */
  readonly crossings: number | null
  readonly crossing: number | null
  /** Elements farther from the truth than half a unit in the last place and what float32 arithmetic explains. */
  readonly unexplained: number
  /** Elements of ours that are farther from the truth than PEFT's, beyond what float32 arithmetic explains. */
  readonly worse: number | null
  /** The largest distance from the truth, in units in the last place of the larger of old and new value. */
  readonly ulps: number
  /** ‖ours − truth‖ / ‖truth − before‖, and the same for PEFT's. */
  readonly ourError: number
  readonly peftError: number | null
  /** The largest of PEFT's errors in a single tensor; 1 is as wrong as no patch. */
  readonly peftWorstTensor: number | null
}

export interface CommandAnswer {
  readonly json: any
  readonly stderr: string
}

/** Makes the variants; takes half a minute. */
export async function makeVariants(out: string, only: readonly string[] = []): Promise<Variant[]> {
  const args = [join(ROOT, 'tests/python/oracle.py'), 'make-variants', '--out', out, ...(only.length > 0 ? ['--only', ...only] : [])]
  await promisify(execFile)(await pythonPath(), args, { maxBuffer: 64 << 20 })
  return readVariants(out)
}

export async function readVariants(folder: string): Promise<Variant[]> {
  return JSON.parse(await readFile(join(folder, 'variants.json'), 'utf8')).variants
}

/** `portllm merge … --json`, in this process: a thousand processes would take minutes. Rejects as the command does. */
export async function mergeVariant(variant: Variant, { model }: VariantMerge, output: string): Promise<CommandAnswer> {
  const weights = variant.adapters.flatMap(([, weight]) => [`--weight=${weight}`])
  const args = ['merge', model, ...variant.adapters.map(([folder]) => folder), ...weights, ...variant.options, '--output', output, '--quiet', '--json']
  const program = new Command().exitOverride()
  addMerge(program)
  const written = { stdout: '', stderr: '' }
  const exitCode = process.exitCode
  const restore = (['stdout', 'stderr'] as const).map((name) => {
    const { write } = process[name]
    process[name].write = ((text: string | Uint8Array, ...rest: unknown[]) => {
      written[name] += String(text)
      const done = rest.at(-1)
      if (typeof done === 'function') done()
      return true
    }) as typeof write
    return () => void (process[name].write = write)
  })
  try {
    await program.parseAsync(args, { from: 'user' })
  } finally {
    for (const undo of restore) undo()
    process.exitCode = exitCode
  }
  return { json: JSON.parse(written.stdout), stderr: written.stderr }
}

/** Merges and compares. Throws where a tensor is missing, has another dtype or shape, or changes though it should not. */
export async function compareVariant(variant: Variant, merge: VariantMerge, output: string): Promise<Comparison & CommandAnswer> {
  const answer = await mergeVariant(variant, merge, output)
  const ofPeft = [merge.peft, merge.peftRoundedOnce].map((file) => (file === null ? null : readTensors(file)))
  const [ours, before, truth, theirs, once] = await Promise.all([readFolder(output), readFolder(merge.model), readTensors(merge.truth!), ...ofPeft] as const)
  if (variant.options.includes('untie')) {
    const config = JSON.parse(await readFile(join(output, 'config.json'), 'utf8'))
    if (config.tie_word_embeddings !== false) throw new Error(`config.json still has tie_word_embeddings: ${config.tie_word_embeddings}`)
    untie(before as Map<string, StoredTensor>)
  }
  expectSameTensors(ours, before, truth)
  return { ...answer, ...compare(ours, before, truth, theirs!, once!) }
}

function untie(model: Map<string, StoredTensor>): void {
  model.set('lm_head.weight', model.get('model.embed_tokens.weight')!)
}

function expectSameTensors(ours: StoredTensors, before: StoredTensors, truth: StoredTensors): void {
  const names = [ours, before].map((tensors) => [...tensors.keys()].sort().join(' '))
  if (names[0] !== names[1]) throw new Error(`the merged model has other tensors: ${names[0]} instead of ${names[1]}`)
  for (const [name, { dtype, shape }] of before) {
    const merged = ours.get(name)!
    if (merged.dtype !== dtype || merged.shape.join() !== shape.join()) throw new Error(`${name} is ${merged.dtype} [${merged.shape}] instead of ${dtype} [${shape}]`)
    if (!truth.has(name) && differingElements(merged, before.get(name)!) > 0) throw new Error(`${name} changed, which no adapter changes`)
  }
}

function compare(ours: StoredTensors, before: StoredTensors, truth: StoredTensors, theirs: StoredTensors | null, once: StoredTensors | null): Comparison {
  let [elements, differing, unexplained, worse, ulps, peftWorstTensor, crossings, crossing] = [0, 0, 0, 0, 0, 0, 0, 0]
  const [update, ourError, peftError] = [new Norm(), new Norm(), new Norm()]
  for (const name of new Set([...truth.keys(), ...(theirs?.keys() ?? [])])) {
    const [mine, old, exact, peft] = [ours.get(name)!, before.get(name)!, truth.get(name) ?? before.get(name)!, theirs?.get(name)]
    const [y, w, t, p, q] = [mine, old, exact, peft, once?.get(name)].map((tensor) => tensor && valuesOf(tensor)) as [Float64Array, Float64Array, Float64Array, Float64Array | undefined, Float64Array | undefined]
    const largest = t.reduce((max, value, at) => Math.max(max, Math.abs(value - w[at]!)), 0)
    const [tensorUpdate, tensorPeftError] = [new Norm(), new Norm()]
    elements += t.length
    if (peft !== undefined) differing += differingElements(mine, peft)
    for (let at = 0; at < t.length; at += 1) {
      const error = Math.abs(y[at]! - t[at]!)
      // float32 arithmetic: a few roundings of the values, and one for each term of the update.
      const slack = 2 ** -24 * (4 * (Math.abs(w[at]!) + Math.abs(t[at]!)) + 32 * largest)
      if (!(error <= ulp(mine.dtype, t[at]!) / 2 + slack)) unexplained += 1
      ulps = Math.max(ulps, error / ulp(mine.dtype, Math.max(Math.abs(w[at]!), Math.abs(t[at]!))))
      if (q !== undefined && q[at] !== y[at]) {
        crossings += 1
        crossing = Math.max(crossing, Math.abs(t[at]! - (y[at]! + q[at]!) / 2) / slack)
      }
      ourError.add(error)
      tensorUpdate.add(t[at]! - w[at]!)
      if (p === undefined) continue
      const theirError = Math.abs(p[at]! - t[at]!)
      tensorPeftError.add(theirError)
      if (!(error <= theirError + slack)) worse += 1
    }
    update.join(tensorUpdate)
    peftError.join(tensorPeftError)
    peftWorstTensor = Math.max(peftWorstTensor, tensorPeftError.over(tensorUpdate))
  }
  const common = { elements, unexplained, ulps, ourError: ourError.over(update), ...(once === null ? { crossings: null, crossing: null } : { crossings, crossing }) }
  if (theirs === null) return { ...common, differing: null, worse: null, peftError: null, peftWorstTensor: null }
  return { ...common, differing, worse, peftError: peftError.over(update), peftWorstTensor }
}

class Norm {
  #squares = 0

  add(value: number): void {
    this.#squares += value * value
  }

  join(other: Norm): void {
    this.#squares += other.#squares
  }

  over(other: Norm): number {
    return this.#squares === 0 ? 0 : Math.sqrt(this.#squares / other.#squares)
  }
}
