import { Option, type Command } from 'commander'
import { formatTable } from '../format.ts'
import { integerOption } from '../option-values.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface SearchOptions extends CommonOptions {
  kind?: 'models' | 'patches'
  organization?: string
  base?: string
  limit: number
}

export function addSearch(program: Command): void {
  const command = addCommand(program, 'search [words]', 'find models and patches')
    .addOption(new Option('--kind <kind>', 'only these').choices(['models', 'patches']))
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
  const [models, patches] = await Promise.all([
    wanted === 'patches' ? null : registry.listModels(query),
    wanted === 'models' ? null : registry.listPatches({ ...query, base }),
  ])
  const rows = [
    ...(models?.items ?? []).map((model) => ['model', `${model.organization}/${model.name}`, model.description]),
    ...(patches?.items ?? []).map((patch) => ['patch', `${patch.organization}/${patch.name}`, patch.description]),
  ]
  if (models?.nextCursor || patches?.nextCursor) session.note('There are more: narrow the search, or raise --limit.')
  return { json: { models: models?.items ?? [], patches: patches?.items ?? [] }, text: formatTable(['KIND', 'NAME', 'DESCRIPTION'], rows) }
}
