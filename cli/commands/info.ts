import { Option, type Command } from 'commander'
import { parseReference } from '../../patch/reference.ts'
import type { Dataset, DatasetVersion, Merged, Model, ModelVersion, PatchPackage, PatchVersionSummary, Registry } from '../client.ts'
import { CliError, EXIT, usageError } from '../exit.ts'
import { describeStorage, formatBytes, formatFields, formatTable, plural } from '../format.ts'
import { pickPatchVersion } from '../references.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

const KINDS = ['model', 'patch', 'dataset'] as const
type Kind = (typeof KINDS)[number]

export function addInfo(program: Command): void {
  const command = addCommand(program, 'info <reference>', 'tell about a model, a patch, a dataset, a version or a derivation')
    .addOption(new Option('--kind <kind>', 'where several kinds have the same name').choices(KINDS))
    .addHelpText('after', `
A reference is organization/name, organization/name@version, or the id of a derivation (64 hex digits).

Examples:
  portllm info lab/mistral
  portllm info hospital/triage@^1
  portllm info 4f1c… --json`)
  answerWith(command, info)
}

async function info(session: Session, { kind }: CommonOptions & { kind?: Kind }, text: string): Promise<Answer> {
  const registry = await session.connect()
  if (/^(sha256:)?[0-9a-f]{64}$/.test(text)) {
    const merged = await registry.getDerivation(text.replace('sha256:', ''))
    return { json: merged, text: describeMerged(merged) }
  }
  const { organization, name, selector } = parseReference(text)
  const find = async <T>(of: Kind, request: (organization: string, name: string) => Promise<T>, describe: (found: T) => Promise<Answer>) => {
    const found = kind === undefined || kind === of ? await optional(request(organization, name), kind === of) : null
    return found === null ? [] : [{ of, describe: () => describe(found) }]
  }
  const found = [
    ...await find('model', registry.getModel, (model) => modelInfo(registry, model, selector)),
    ...await find('patch', registry.getPatch, (patch) => patchInfo(registry, patch, selector)),
    ...await find('dataset', registry.getDataset, (dataset) => datasetInfo(registry, dataset, selector)),
  ]
  const [only, other] = found
  if (only === undefined) throw new CliError(EXIT.notFound, 'not_found', `There is no model, patch or dataset ${organization}/${name}, or you may not see it.`)
  if (other !== undefined) throw usageError(`${organization}/${name} is both a ${only.of} and a ${other.of}: say which with --kind ${found.map(({ of }) => of).join(' or --kind ')}.`)
  return only.describe()
}

/** Null where it does not exist, unless it must. */
async function optional<T>(request: Promise<T>, isRequired: boolean): Promise<T | null> {
  try {
    return await request
  } catch (error) {
    if (!isRequired && error instanceof CliError && error.exit === EXIT.notFound) return null
    throw error
  }
}

async function modelInfo(registry: Registry, model: Model, version: string | null): Promise<Answer> {
  const { organization, name } = model
  if (version !== null) {
    const found = await registry.getModelVersion({ organization, name, version })
    return { json: { kind: 'model', ...found }, text: describeModelVersion(found) }
  }
  const heading = formatFields([['model', `${organization}/${name}`], ['description', model.description], ['visibility', model.visibility]])
  const rows = model.versions.map((summary) => [summary.version, summary.state, summary.publishedAt, summary.digest])
  return { json: { kind: 'model', ...model }, text: `${heading}\n\n${formatTable(['VERSION', 'STATE', 'PUBLISHED', 'DIGEST'], rows)}` }
}

async function patchInfo(registry: Registry, patch: PatchPackage, selector: string | null): Promise<Answer> {
  const { organization, name, distTags } = patch
  if (selector !== null) {
    const summary = pickPatchVersion(patch, selector)
    const found = await registry.getPatchVersion({ organization, name, version: summary.version })
    return { json: { kind: 'patch', ...summary, ...found }, text: describePatchVersion(`${organization}/${name}`, summary, found.files) }
  }
  const heading = formatFields([
    ['patch', `${organization}/${name}`], ['description', patch.description], ['visibility', patch.visibility],
    ...Object.entries(distTags).map(([tag, version]) => ['tag', `${tag} → ${version}`] as const),
  ])
  const rows = patch.versions.map((summary) => [summary.version, status(summary), summary.base.reference, summary.publishedAt])
  return { json: { kind: 'patch', ...patch }, text: `${heading}\n\n${formatTable(['VERSION', 'STATE', 'BASE', 'PUBLISHED'], rows)}` }
}

async function datasetInfo(registry: Registry, dataset: Dataset, version: string | null): Promise<Answer> {
  const { organization, name } = dataset
  if (version !== null) {
    const found = await registry.getDatasetVersion({ organization, name, version })
    return { json: { kind: 'dataset', ...found }, text: describeDatasetVersion(found) }
  }
  const heading = formatFields([['dataset', `${organization}/${name}`], ['description', dataset.description], ['visibility', dataset.visibility]])
  const rows = dataset.versions.map((summary) => [summary.version, summary.state, summary.publishedAt, summary.digest])
  return { json: { kind: 'dataset', ...dataset }, text: `${heading}\n\n${formatTable(['VERSION', 'STATE', 'PUBLISHED', 'DIGEST'], rows)}` }
}

function status({ state, yanked, deprecated }: PatchVersionSummary): string {
  return [state, yanked === null ? null : 'yanked', deprecated === null ? null : 'deprecated'].filter((word) => word !== null).join(', ')
}

function describeModelVersion(version: ModelVersion): string {
  return formatFields([
    ['model', version.reference], ['state', version.state], ['digest', version.digest], ['published', version.publishedAt],
    ['parent', version.parent && `${version.parent.reference} (${version.parent.kind})`],
    ['tensors', version.tensorCount], ['parameters', version.parameterCount],
    ['files', describeFiles(version.files)],
    ...(version.rejection ?? []).map(({ message }) => ['rejected', message] as const),
  ])
}

function describePatchVersion(name: string, summary: PatchVersionSummary, files: readonly { size: number }[]): string {
  return formatFields([
    ['patch', `${name}@${summary.version}`], ['state', status(summary)], ['digest', summary.digest], ['published', summary.publishedAt],
    ['base', summary.base.reference], ['target range', summary.targetRange],
    ['yanked', summary.yanked && `${summary.yanked.at}: ${summary.yanked.reason ?? 'no reason given'}`], ['deprecated', summary.deprecated],
    ['files', describeFiles(files)],
  ])
}

function describeDatasetVersion(version: DatasetVersion): string {
  return formatFields([
    ['dataset', version.reference], ['state', version.state], ['digest', version.digest], ['published', version.publishedAt],
    ...version.files.map(({ path, size }) => ['file', `${path}, ${formatBytes(size)}`] as const),
    ...(version.rejection ?? []).map(({ message }) => ['rejected', message] as const),
  ])
}

function describeMerged(merged: Merged): string {
  return formatFields([
    ['derivation', merged.id], ['state', merged.state], ['rules', merged.rules.join(', ')], ['options', Object.entries(merged.options).map(([name, value]) => `${name}: ${value}`).join(', ') || null], ['target', merged.target.reference],
    ...merged.patches.map(({ reference, weight }) => ['patch', `${reference}${weight === 1 ? '' : ` with weight ${weight}`}`] as const),
    ['files', describeFiles(merged.files)], ['storage', describeStorage(merged)], ['ready', merged.readyAt], ['page', merged.page],
  ])
}

function describeFiles(files: readonly { size: number }[]): string {
  return `${plural(files.length, 'file')}, ${formatBytes(files.reduce((sum, { size }) => sum + size, 0))}`
}
