import type { Command } from 'commander'
import { derivationId } from '../../patch/derivation.ts'
import type { LayOptions } from '../../patch/laying.ts'
import { sampleNames, type Receipt } from '../../patch/receipt.ts'
import { parseReference } from '../../patch/reference.ts'
import type { Merged, Registry } from '../client.ts'
import { CliError, EXIT, usageError } from '../exit.ts'
import { formatFields, plural } from '../format.ts'
import { addLayOptions, chosenOptions, collectOption, integerOption } from '../option-values.ts'
import { startProgress } from '../progress.ts'
import { modelVersionName } from '../references.ts'
import { planRederivation, type Rederivation } from '../rederive.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface VerifyOptions extends CommonOptions, Partial<LayOptions> {
  patch?: string[]
  derivation?: string
  sample?: number
  seed: number
}

const EXAMPLES = `
Plans the merge again from the files that its recipe names, computes the changed tensors here, and compares their
digests with those of the receipt: no byte of the merged model and no word of its runner is taken on trust. With
--sample only that many tensors are computed, chosen by --seed. Exit code 8 where a digest differs.

Examples:
  portllm verify lab/mistral@2.0 --patch hospital/triage@^1
  portllm verify lab/mistral@2.0 --patch hospital/triage --sample 5 --seed 42
  portllm verify --derivation 9f2b… --json`

export function addVerify(program: Command): void {
  const command = addCommand(program, 'verify [target]', 'compute a merged model again and compare it with its receipt')
    .option('-p, --patch <patch>', 'patch that was merged onto the target; repeatable, in the order of summation', collectOption)
    .option('--derivation <id>', 'the merged model, by the id of its derivation')
    .option('--sample <n>', 'compute only this many of the changed tensors', integerOption(1, 1_000_000))
    .option('--seed <n>', 'chooses the sample', integerOption(0, 2 ** 32 - 1), 0)
    .addHelpText('after', EXAMPLES)
  addLayOptions(command)
  answerWith(command, (session, options: VerifyOptions, target: string | undefined) => verify(session, options, target))
}

async function verify(session: Session, options: VerifyOptions, target: string | undefined): Promise<Answer> {
  for (const patch of options.patch ?? []) parseReference(patch)
  const registry = await session.connect()
  const merged = await findMerged(registry, options, target)
  if (merged.state !== 'ready') throw new CliError(EXIT.conflict, 'wrong_state', `The merged model ${merged.id} is ${merged.state}: there is no receipt to check yet. Fetch it with \`portllm get\`, then verify it.`)
  const receipt = await registry.getReceipt(merged.id)
  await requireOwnRecipe(merged, receipt)
  const rederivation = await planRederivation(registry, merged, receipt.recipe)
  requireSameTensors(rederivation, receipt)
  const results = await compare(session, rederivation, receipt, options)
  const wrong = results.filter(({ expected, found }) => expected !== found)
  return { json: { derivation: merged.id, receipt, checked: results.length, of: receipt.tensors.length, seed: options.sample === undefined ? null : options.seed, tensors: results }, text: describe(merged, receipt, results, wrong), exit: wrong.length > 0 ? EXIT.damaged : EXIT.ok }
}

async function findMerged(registry: Registry, options: VerifyOptions, target: string | undefined): Promise<Merged> {
  if (options.derivation !== undefined) {
    if (target !== undefined || (options.patch ?? options.absolute ?? options.tied) !== undefined) throw usageError('--derivation names the merged model: leave target, --patch, --absolute and --tied away.')
    return registry.getDerivation(options.derivation)
  }
  if (target === undefined || options.patch === undefined) throw usageError('Name the merged model: a target and at least one --patch, or --derivation with its id.')
  const answer = await registry.requestMerged(await modelVersionName(registry, target), options.patch, chosenOptions(options))
  return 'merged' in answer ? answer.merged : registry.getDerivation(answer.derivation)
}

/** The recipe is what the id says it is, and names what the registry shows. */
async function requireOwnRecipe(merged: Merged, { derivation, recipe }: Receipt): Promise<void> {
  const id = await derivationId(recipe)
  const isOwn = derivation === merged.id && id === merged.id && recipe.target === merged.target.digest && recipe.patches.length === merged.patches.length
  if (!isOwn) throw new CliError(EXIT.damaged, 'receipt_mismatch', `The receipt is not of the merged model ${merged.id}: its recipe has the id ${id}.`)
}

function requireSameTensors({ plans }: Rederivation, { tensors }: Receipt): void {
  const planned = new Set(plans.map(({ name }) => name))
  const listed = new Set(tensors.map(({ name }) => name))
  const odd = [...planned, ...listed].find((name) => !planned.has(name) || !listed.has(name))
  if (odd === undefined) return
  throw new CliError(EXIT.damaged, 'receipt_mismatch', planned.has(odd) ? `The receipt leaves out ${odd}, which the patches change.` : `The receipt names ${odd}, which the patches do not change.`)
}

interface Compared { readonly name: string; readonly expected: string; readonly found: string }

async function compare(session: Session, { plans, digest }: Rederivation, receipt: Receipt, { sample, seed }: VerifyOptions): Promise<Compared[]> {
  const names = receipt.tensors.map(({ name }) => name)
  const chosen = new Set(sample === undefined ? names : sampleNames(names, sample, seed))
  const expected = new Map(receipt.tensors.map((tensor) => [tensor.name, tensor.digest]))
  const work = plans.filter(({ name }) => chosen.has(name))
  const total = work.reduce((sum, { source }) => sum + source.length, 0)
  const progress = startProgress('Computing again', 'bytes', session.quiet)
  const results: Compared[] = []
  let done = 0
  try {
    for (const plan of work) results.push({ name: plan.name, expected: expected.get(plan.name)!, found: await digest(plan, (count) => progress.update((done += count), total)) })
  } finally {
    progress.stop()
  }
  return results
}

function describe(merged: Merged, { engine, totals, tensors }: Receipt, results: readonly Compared[], wrong: readonly Compared[]): string {
  const percent = (part: number | null) => (part === null ? null : `${(100 * part).toPrecision(4)}%`)
  const fields = formatFields([
    ['derivation', merged.id], ['target', merged.target.reference], ...merged.patches.map(({ reference, weight }) => ['patch', `${reference}${weight === 1 ? '' : ` with weight ${weight}`}`] as const),
    ['engine', `${engine.name} ${engine.version} (${engine.path})`], ['realised delta', percent(totals.realisedDelta)], ['lost in rounding', percent(totals.roundingLoss)],
    [wrong.length > 0 ? 'DIFFERENT' : 'verified', `${plural(results.length - wrong.length, 'tensor')} of ${tensors.length} computed again to the digest of the receipt${wrong.length > 0 ? `, ${wrong.length} to another` : ''}`],
  ])
  return [fields, ...wrong.map(({ name, expected, found }) => `${name}: the receipt says ${expected}, computed here ${found}`)].join('\n')
}
