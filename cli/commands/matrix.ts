import { writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { comparisonPicture } from '../../patch/comparison-picture.ts'
import { compareEvaluations, type ComparedEvaluation, type Comparison } from '../../patch/comparison.ts'
import { formatReference, parseReference } from '../../patch/reference.ts'
import { scoreMatrices, type MatrixCell, type ScoreMatrix } from '../../patch/score-matrix.ts'
import type { EvaluationSummary, Registry } from '../client.ts'
import { CliError, EXIT, usageError } from '../exit.ts'
import { formatTable } from '../format.ts'
import { checkOutputs } from '../output-files.ts'
import { formatScore } from '../scores.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface MatrixOptions extends CommonOptions {
  task?: string
  target?: string
  output?: string
}

const EXAMPLES = `
Scores of a patch on every model version that it was evaluated on, beside the model alone, with standard errors. Only
scores of the same version of a task, with the same questions, are in one table. With --output, the picture: base,
evolved, evolved + patch, and a version of the patch that was trained on the evolved model.

The patch is written organization/name, or organization/name@version for one version of it.

Examples:
  portllm matrix hospital/triage
  portllm matrix hospital/triage --target lab/mistral@2.0 --output triage.svg
  portllm matrix hospital/triage@1.0.0 --task boolq --json`

const PAGE = 200

/** What the output file holds, by its extension. */
const FORMATS: Readonly<Record<string, 'svg' | 'json'>> = { '.svg': 'svg', '.json': 'json' }

interface Found { readonly patch: string; readonly matrices: readonly ScoreMatrix[]; readonly comparisons: readonly Comparison[] }

export function addMatrix(program: Command): void {
  const command = addCommand(program, 'matrix <patch>', 'scores of a patch on the model versions that it was evaluated on')
    .option('--task <task>', 'only this task')
    .option('-t, --target <org/name@version>', 'the picture of this target, where there are several')
    .option('-o, --output <file>', 'write the picture (.svg) or all figures (.json)')
    .addHelpText('after', EXAMPLES)
  answerWith(command, (session, options: MatrixOptions, patch: string) => matrix(session, options, patch))
}

async function matrix(session: Session, options: MatrixOptions, patch: string): Promise<Answer> {
  const { organization, name, selector, weight } = parseReference(patch)
  if (weight !== 1) throw usageError(`${patch} has a weight: evaluations are of patches as they were published.`)
  const [output] = await checkOutputs(options.output === undefined ? [] : [options.output], FORMATS)
  const registry = await session.connect()
  const evaluations = await findEvaluations(registry, formatReference({ organization, name, selector }), options.task)
  if (evaluations.length === 0) throw new CliError(EXIT.notFound, 'not_found', `${patch} has no evaluation that you may see${options.task === undefined ? '' : ` of the task ${options.task}`}. Make one: portllm evaluate <model> --patch ${organization}/${name} --tasks boolq`)
  const found = { patch: `${organization}/${name}`, matrices: scoreMatrices(evaluations), comparisons: compareEvaluations(evaluations) }
  if (output !== undefined) {
    await writeFile(output.path, output.format === 'json' ? `${JSON.stringify(found, null, 2)}\n` : comparisonPicture(chooseComparison(found, options.target)), { signal: session.signal })
    session.note(`Wrote ${output.path}.`)
  }
  return { json: found, text: found.matrices.map(describe).join('\n\n') }
}

/** Of the patch, and of the models alone that it was evaluated on or trained on. */
async function findEvaluations(registry: Registry, patch: string, task: string | undefined): Promise<ComparedEvaluation[]> {
  const asked = task === undefined ? {} : { task }
  const patched = await listAll(registry, { patch, ...asked })
  const models = new Set(patched.flatMap(({ target, patch: of }) => [target.reference, of!.base.reference]))
  const alone = await Promise.all([...models].map((model) => listAll(registry, { model, how: 'plain', ...asked }).catch(whereHidden)))
  const ready = [...patched, ...alone.flat()].flatMap(({ result, ...rest }) => (result === null ? [] : [{ ...rest, result }]))
  return task === undefined ? ready : ready.map((one) => ({ ...one, result: { ...one.result, scores: scoresOf(one, task) } }))
}

/** A group of tasks has no score of its own name: then those of its members, which were not asked for by theirs. */
function scoresOf({ spec, result: { scores } }: ComparedEvaluation, task: string) {
  const own = scores.filter((score) => score.task === task)
  return own.length > 0 ? own : scores.filter((score) => !spec.tasks.includes(score.task))
}

async function listAll(registry: Registry, query: Parameters<Registry['listEvaluations']>[0]): Promise<EvaluationSummary[]> {
  const all: EvaluationSummary[] = []
  for (let cursor: string | undefined; ; ) {
    const { items, nextCursor } = await registry.listEvaluations({ ...query, limit: PAGE, ...(cursor !== undefined && { cursor }) })
    all.push(...items)
    if (nextCursor === null) return all
    cursor = nextCursor
  }
}

/** A patch of one's own may have been trained on a model that one may not see any more. */
function whereHidden(error: unknown): EvaluationSummary[] {
  if (error instanceof CliError && error.exit === EXIT.notFound) return []
  throw error
}

function chooseComparison({ patch, comparisons }: Found, target: string | undefined): Comparison {
  const fitting = target === undefined ? comparisons : comparisons.filter((comparison) => comparison.target === target)
  if (fitting.length === 1) return fitting[0]!
  const targets = comparisons.map((comparison) => comparison.target)
  if (targets.length === 0) throw new CliError(EXIT.notFound, 'not_found', `${patch} was evaluated only on what it was trained on: there is nothing to compare.`)
  throw usageError(`${target === undefined ? `${patch} was evaluated on several targets` : `${patch} was not evaluated on ${target}`}: give one as --target: ${targets.join(', ')}.`)
}

function describe({ task, version, metric, filter, higher_is_better, num_fewshot, limit, targets, rows }: ScoreMatrix): string {
  const conditions = [`task version ${version}`, filter === 'none' ? null : filter, num_fewshot === null ? null : `${num_fewshot}-shot`, limit === null ? null : `first ${limit} questions`, higher_is_better ? 'higher is better' : 'lower is better']
  const table = formatTable(['patch', ...targets], rows.map(({ patch, cells }) => [patch ?? 'none', ...cells.map(cellText)]))
  return `${task} ${metric} (${conditions.filter((part) => part !== null).join(', ')})\n${table}`
}

function cellText(cell: MatrixCell | null): string | null {
  return cell === null ? null : `${formatScore(cell)}${cell.how === 'peft' ? ' (PEFT)' : ''}`
}
