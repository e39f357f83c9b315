import { datasetProblems } from '../patch/dataset-files.ts'
import { CliError, EXIT } from './exit.ts'
import type { LocalFile } from './publishable-files.ts'

export type FolderKind = 'model' | 'patch' | 'dataset'

export const ADAPTER_WEIGHTS = 'adapter_model.safetensors'
export const ADAPTER_CONFIG = 'adapter_config.json'

/** What PEFT or transformers wrote into a folder, told by its files; `asked` decides where it holds both. A dataset is one only where that is asked. */
export function folderKind(folder: string, files: readonly Pick<LocalFile, 'path'>[], asked?: FolderKind): FolderKind {
  if (asked === 'dataset') return requireData(folder, files)
  const paths = new Set(files.map(({ path }) => path))
  const isPatch = paths.has(ADAPTER_CONFIG)
  const isModel = paths.has('config.json') || files.some(({ path }) => !path.includes('/') && path.endsWith('.safetensors') && path !== ADAPTER_WEIGHTS)
  if (isPatch && isModel && asked === undefined) {
    throw new CliError(EXIT.usage, 'usage', `${folder} holds both an adapter (${ADAPTER_CONFIG}) and a model. Say which with --kind patch or --kind model, or move them apart.`)
  }
  const found = isPatch ? 'patch' : isModel ? 'model' : null
  if (asked !== undefined && found !== null && asked !== found && !(isPatch && isModel)) throw new CliError(EXIT.usage, 'usage', `${folder} is a ${found}, where a ${asked} is expected.`)
  const kind = asked ?? found
  if (kind === null) {
    throw new CliError(EXIT.failure, 'not_a_model', `${folder} is neither a model nor a patch: a model has config.json and *.safetensors, a patch ${ADAPTER_CONFIG} and ${ADAPTER_WEIGHTS} (as save_pretrained writes them). Data to train on are published with --kind dataset.`)
  }
  if (kind === 'model') {
    requireFiles(folder, paths, ['config.json', ...([...paths].some((path) => path.endsWith('.safetensors')) ? [] : ['model.safetensors'])], 'model')
    return kind
  }
  requireFiles(folder, paths, [ADAPTER_CONFIG, ADAPTER_WEIGHTS], 'patch')
  const other = [...paths].find((path) => path.endsWith('.safetensors') && path !== ADAPTER_WEIGHTS)
  if (other !== undefined) throw new CliError(EXIT.failure, 'unexpected_weights', `${folder} holds ${other}, but a patch has its weights in ${ADAPTER_WEIGHTS} alone. Move it out of the folder.`)
  return kind
}

/** What ingest would refuse. */
function requireData(folder: string, files: readonly Pick<LocalFile, 'path'>[]): 'dataset' {
  const [problem] = datasetProblems(files.map(({ path }) => path))
  if (problem !== undefined) throw new CliError(EXIT.failure, problem.code.replaceAll('-', '_'), `${folder}: ${problem.message}`)
  return 'dataset'
}

function requireFiles(folder: string, paths: ReadonlySet<string>, names: readonly string[], what: string): void {
  for (const name of names) {
    if (!paths.has(name)) throw new CliError(EXIT.failure, 'missing_file', `${folder} has no ${name}, which a ${what} must have. Save it with save_pretrained(folder, safe_serialization=True).`)
  }
}
