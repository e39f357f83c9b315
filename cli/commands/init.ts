import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline/promises'
import { Option, type Command } from 'commander'
import { CliError, EXIT, usageError } from '../exit.ts'
import { ADAPTER_CONFIG, folderKind, type FolderKind } from '../folder-kind.ts'
import { PARENT_KINDS, type PublishFile } from '../portllm-file.ts'
import { PUBLISH_FILE_NAME, publishableFiles } from '../publishable-files.ts'
import { publishPlan } from '../publish-plan.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface InitOptions extends PublishFile, CommonOptions {
  force?: boolean
}

const EXAMPLES = `
Writes ${PUBLISH_FILE_NAME} into the folder, so that \`portllm publish <folder>\` needs no options. What is missing is
asked for on a terminal.

Examples:
  portllm init ./adapter --name hospital/triage --version 1.0.0 --base lab/mistral@1.0
  portllm init ./mistral-v2 --name lab/mistral --version 2.0 --parent lab/mistral@1.0 --parent-kind continued-pretraining`

export function addInit(program: Command): void {
  const command = addCommand(program, 'init [folder]', `write ${PUBLISH_FILE_NAME} into the folder of a model, a patch or a dataset`)
    .option('--name <org/name>', 'what it is called')
    .option('--version <version>', 'its version')
    .addOption(new Option('--kind <kind>', 'what the folder holds: a dataset, or which where it holds both others').choices(['model', 'patch', 'dataset']))
    .option('--base <org/name@version>', 'patches: the exact model version it was trained on')
    .option('--target-range <range>', 'patches: semver range of the target versions that you vouch for')
    .option('--parent <org/name@version>', 'models: the version it was made from')
    .addOption(new Option('--parent-kind <kind>', 'models: how it was made from its parent').choices(PARENT_KINDS))
    .addOption(new Option('--visibility <visibility>', 'who may see it').choices(['public', 'internal']))
    .option('--description <text>', 'one line about it')
    .option('-f, --force', `replace an existing ${PUBLISH_FILE_NAME}`)
    .addHelpText('after', EXAMPLES)
  answerWith(command, (session, options: InitOptions, folder: string | undefined) => init(session, options, folder ?? '.'))
}

async function init(session: Session, options: InitOptions, folder: string): Promise<Answer> {
  const { files } = await publishableFiles(folder)
  const kind = folderKind(folder, files, options.kind)
  const { name, version, base, targetRange, parent, parentKind, visibility, description } = options
  const given: PublishFile = { kind, name, version, base, targetRange, parent, parentKind, visibility, description }
  const settings = await askMissing(session, folder, kind, given)
  publishPlan(kind, settings)
  const path = join(folder, PUBLISH_FILE_NAME)
  const text = `${JSON.stringify(settings, null, 2)}\n`
  await writeFile(path, text, { flag: options.force ? 'w' : 'wx' }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST') throw new CliError(EXIT.conflict, 'output_exists', `${path} exists already. Replace it with --force.`)
    throw error
  })
  return { json: { path, ...settings }, text: `Wrote ${path}. Publish with: portllm publish ${folder}` }
}

async function askMissing(session: Session, folder: string, kind: FolderKind, given: PublishFile): Promise<PublishFile> {
  const needed = ['name', ...(given.name?.includes('@') ? [] : ['version']), ...(kind === 'patch' ? ['base'] : [])] as ('name' | 'version' | 'base')[]
  const missing = needed.filter((key) => given[key] === undefined)
  if (missing.length === 0) return given
  if (!process.stdin.isTTY || !process.stderr.isTTY) throw usageError(`Missing: ${missing.map((key) => `--${key}`).join(', ')}.`)
  const hint = kind === 'patch' ? await baseHint(folder) : null
  const questions = {
    name: 'Name (organization/name): ',
    version: kind === 'patch' ? 'Version (1.0.0): ' : 'Version (1.0): ',
    base: `Base, the exact version it was trained on (organization/model@version)${hint ? `; the adapter names ${hint}` : ''}: `,
  }
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  lines.on('SIGINT', () => process.kill(process.pid, 'SIGINT'))
  const answers: PublishFile = { ...given }
  try {
    for (const key of missing) answers[key] = (await lines.question(questions[key], { signal: session.signal })).trim() || (key === 'version' ? (kind === 'patch' ? '1.0.0' : '1.0') : undefined)
  } finally {
    lines.close()
  }
  return answers
}

/** PEFT notes where the base was loaded from: a path or a name on the Hub, so a hint and no more. */
async function baseHint(folder: string): Promise<string | null> {
  const { base_model_name_or_path: hint } = JSON.parse(await readFile(join(folder, ADAPTER_CONFIG), 'utf8')) as { base_model_name_or_path?: unknown }
  return typeof hint === 'string' ? hint : null
}
