import { Option, type Command } from 'commander'
import type { VersionKind } from '../client.ts'
import { formatTable } from '../format.ts'
import { integerOption } from '../option-values.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface SearchOptions extends CommonOptions {
  kind?: VersionKind
  organization?: string
  base?: string
  limit: number
}

export function addSearch(program: Command): void {
  const command = addCommand(program, 'search [words]', 'find models, patches and datasets')
    .addOption(new Option('--kind <kind>', 'only these').choices(['models', 'patches', 'datasets']))
    .option('--organization <name>', 'only those of this organization')
    .option('--base <org/name>', 'only patches trained on this model')
    .option('--limit <n>', 'how many of each', integerOption(1, 200), 20)
    .addHelpText('after', '\nExamples:\n  portllm search triage\n  portllm search --kind patches --base lab/mistral')
  answerWith(command, search)
}

async function search(session: Session, { kind, organization, base, limit }: SearchOptions, words: string | undefined): Promise<Answer> {
  const registry = await session.connect()
  const wanted = base === undefined ? kind : 'patches'
  const query = { q: words, organization, limit }
  const asked = (of: VersionKind) => wanted === undefined || wanted === of
  const [models, patches, datasets] = await Promise.all([
    asked('models') ? registry.listModels(query) : null,
    asked('patches') ? registry.listPatches({ ...query, base }) : null,
    asked('datasets') ? registry.listDatasets(query) : null,
  ])
  const found = { model: models, patch: patches, dataset: datasets }
  const rows = Object.entries(found).flatMap(([what, page]) => (page?.items ?? []).map(({ organization, name, description }) => [what, `${organization}/${name}`, description]))
  if (Object.values(found).some((page) => page?.nextCursor)) session.note('There are more: narrow the search, or raise --limit.')
  return { json: { models: models?.items ?? [], patches: patches?.items ?? [], datasets: datasets?.items ?? [] }, text: formatTable(['KIND', 'NAME', 'DESCRIPTION'], rows) }
}
