import { writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { analysisPicture } from '../../patch/analysis-picture.ts'
import type { Analysis } from '../../patch/analysis.ts'
import { formatReference, parseReference } from '../../patch/reference.ts'
import { analysisReport, CAVEAT, type AnalysisNames } from '../analysis-report.ts'
import { analysisTable } from '../analysis-table.ts'
import type { Job, Registry } from '../client.ts'
import { usageError } from '../exit.ts'
import { formatFields, plural } from '../format.ts'
import { requireSuccess, waitForJob } from '../job-wait.ts'
import { analyzeFolders } from '../local-analysis.ts'
import { collectOption } from '../option-values.ts'
import { checkOutputs } from '../output-files.ts'
import { modelVersionName } from '../references.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface AnalyzeOptions extends CommonOptions {
  target: string
  base?: string
  output?: string[]
  layers?: boolean
}

const EXAMPLES = `
Measures from weights alone what a patch meets on a target: how far the target has drifted from the base that the patch
was trained on, and how that drift lies to what the patch reads, writes and adds; attention and MLP apart.
${CAVEAT}

In a registry, the patch is written organization/name[@version, range or tag] and the target organization/model@version;
the base is the patch's own. With --base, all three are folders here, and no registry is asked.

Examples:
  portllm analyze hospital/triage@^1 --target lab/mistral@2.0 --output report.html
  portllm analyze hospital/triage --target lab/mistral@2.0 --layers
  portllm analyze ./triage-adapter --base ./mistral-v1 --target ./mistral-v2 --output picture.svg --output figures.json`

/** What an output file holds, by its extension. */
const FORMATS: Readonly<Record<string, (analysis: Analysis, names: AnalysisNames) => string>> = {
  '.html': analysisReport,
  '.svg': analysisPicture,
  '.json': (analysis) => `${JSON.stringify(analysis, null, 2)}\n`,
}

export function addAnalyze(program: Command): void {
  const command = addCommand(program, 'analyze <patch>', 'measure what a patch meets on a target')
    .requiredOption('-t, --target <target>', 'the model version that it is to go onto; with --base its folder')
    .option('-b, --base <folder>', 'folder of the model that the patch was trained on; patch and target are folders too')
    .option('-o, --output <file>', 'write a report (.html), the picture (.svg) or the figures (.json); repeatable', collectOption)
    .option('--layers', 'print the figures of every layer too')
    .addHelpText('after', EXAMPLES)
  answerWith(command, (session, options: AnalyzeOptions, patch: string) => analyze(session, options, patch))
}

async function analyze(session: Session, options: AnalyzeOptions, patch: string): Promise<Answer> {
  const outputs = await checkOutputs(options.output ?? [], FORMATS)
  const { base, target } = options
  const { result, names, json } = base === undefined ? await inRegistry(session, patch, target) : await inFolders(session, { patch, base, target })
  for (const { path, format } of outputs) {
    await writeFile(path, format(result, names), { signal: session.signal })
    session.note(`Wrote ${path}.`)
  }
  const { whole, unmeasured, measured } = result
  if (whole.rowMatch !== null && whole.rowMatch.elsewhere > 0) {
    session.warn(`Note: ${whole.rowMatch.elsewhere} of ${whole.rowMatch.sampled} sampled rows of the base are nearer to another row of the target than to their own, as where a model's units were permuted.`)
  }
  if (whole.nonFinite > 0) session.warn(`Warning: the merge would hold ${plural(whole.nonFinite, 'value')} that ${whole.nonFinite === 1 ? 'is' : 'are'} NaN or infinite.`)
  for (const { name, reason } of unmeasured.slice(0, 10)) session.warn(`Not measured: ${name}. ${reason}`)
  if (unmeasured.length > 10) session.warn(`Not measured: ${unmeasured.length - 10} more; --json lists them.`)
  const fields = formatFields([['patch', names.patch], ['base', names.base], ['target', names.target], ['measured by', `${measured.by}, ${measured.at}`]])
  return { json, text: `${fields}\n\n${analysisTable(result, options.layers ?? false)}\n\n${CAVEAT}` }
}

async function inRegistry(session: Session, patch: string, target: string) {
  if (parseReference(patch).weight !== 1) throw usageError(`${patch} has a weight: an analysis measures a patch as it was published.`)
  const registry = await session.connect()
  const { organization, name, version } = await modelVersionName(registry, target)
  const asked = await registry.requestAnalysis({ patch, target: formatReference({ organization, name, selector: version }) })
  const analysis = 'analysis' in asked ? await finished(registry, asked, session.quiet) : asked
  return { result: analysis.result as Analysis, names: { patch: analysis.patch.reference, base: analysis.base.reference, target: analysis.target.reference }, json: analysis }
}

async function finished(registry: Registry, { analysis, job }: { analysis: string; job: Job | null }, quiet: boolean) {
  if (job !== null) requireSuccess(await waitForJob(registry, job.id, 'Analysis', quiet))
  return registry.getAnalysis(analysis)
}

async function inFolders(session: Session, folders: { patch: string; base: string; target: string }) {
  const result = await analyzeFolders(session, folders)
  const version = (name: 'patch' | 'base' | 'target') => ({ folder: folders[name], digest: result[name] })
  return { result, names: folders, json: { patch: version('patch'), base: version('base'), target: version('target'), result } }
}
