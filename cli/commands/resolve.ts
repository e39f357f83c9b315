import type { Command } from 'commander'
import type { LayOptions } from '../../patch/laying.ts'
import { formatReference, parseReference } from '../../patch/reference.ts'
import type { Resolution } from '../client.ts'
import { figuresLine } from '../analysis-table.ts'
import { EXIT } from '../exit.ts'
import { formatFields, plural } from '../format.ts'
import { formatScore } from '../scores.ts'
import { addLayOptions, chosenOptions } from '../option-values.ts'
import { describeReason } from '../reasons.ts'
import { modelVersionName } from '../references.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

const EXAMPLES = `
The verdict is identical, portable, portable-with-warnings, unverified or incompatible (exit code 3). A patch is
written organization/name[@version, range or tag][:weight].

Examples:
  portllm resolve hospital/triage --target lab/mistral@2.0
  portllm resolve hospital/triage@^1 lab/style@2.1.0:0.5 --target lab/mistral@2.0 --json`

export function addResolve(program: Command): void {
  const command = addCommand(program, 'resolve <patches...>', 'may these patches go onto this target?')
    .requiredOption('-t, --target <org/name@version>', 'the model version that they are to go onto')
    .addHelpText('after', EXAMPLES)
  addLayOptions(command)
  answerWith(command, resolve)
}

async function resolve(session: Session, options: CommonOptions & Partial<LayOptions> & { target: string }, patches: string[]): Promise<Answer> {
  for (const patch of patches) parseReference(patch)
  const registry = await session.connect()
  const { organization, name, version } = await modelVersionName(registry, options.target)
  const resolution = await registry.resolve(formatReference({ organization, name, selector: version }), patches, chosenOptions(options))
  return { json: resolution, text: describe(resolution), exit: resolution.verdict === 'incompatible' ? EXIT.incompatible : EXIT.ok }
}

function describe({ verdict, target, patches, derivation, merged }: Resolution): string {
  const parts = patches.map((patch) => [
    `${patch.reference}${patch.weight === 1 ? '' : ` with weight ${patch.weight}`}: ${patch.verdict} (trained on ${patch.base.reference}, ${plural(patch.edits, 'edit')})`,
    ...patch.evidence.flatMap(describeEvidence),
    ...patch.reasons.map((reason) => `  ${reason.severity.padEnd(7)}  ${reason.code}: ${describeReason(reason)}`),
  ].join('\n'))
  return [formatFields([['verdict', verdict], ['target', target.reference], ['derivation', derivation], ['merged', merged]]), ...parts].join('\n\n')
}

function describeEvidence(evidence: Resolution['patches'][number]['evidence'][number]): string[] {
  const { measured } = evidence
  if (evidence.kind === 'analysis') {
    return [...evidence.parts.map((entry) => `  evidence ${entry.part}: ${figuresLine(entry.figures)} (measured by ${measured.by})`), `  evidence transfer: ${evidence.transfer.says}`]
  }
  return evidence.scores.map((score) => {
    const alone = score.alone === null ? '' : `, the target alone ${formatScore(score.alone)}`
    return `  evidence ${score.task} ${score.metric}: ${formatScore(score)}${alone} (${evidence.how}, ${plural(score.samples, 'question')}, task version ${score.version}, measured by ${measured.by})`
  })
}
