import { readFile } from 'node:fs/promises'
import { Option, type Command } from 'commander'
import { parseReference } from '../patch/reference.ts'
import type { EvolveSpec, FinetuneSpec } from '../patch/training.ts'
import type { Job, Registry, VersionName } from './client.ts'
import { CliError, EXIT, usageError } from './exit.ts'
import { formatFields } from './format.ts'
import { requireSuccess, waitForJob } from './job-wait.ts'
import type { Answer, Session } from './session.ts'

interface Published {
  readonly description?: string
  readonly visibility?: 'public' | 'internal'
  /** Whether to wait until the version is published. */
  readonly wait: boolean
}

/** Options of a command that trains here, or with `--as` in a registry. */
export interface PublishOptions extends Published {
  readonly as?: string
}

export function addPublishOptions(command: Command, what: 'patch' | 'model'): void {
  command
    .option('--as <org/name@version>', `have the registry do it, and publish the ${what} as this version`)
    .option('--description <text>', `with --as: one line about the ${what}, where it is new`)
    .addOption(new Option('--visibility <visibility>', `with --as: who may see the ${what}, where it is new`).choices(['public', 'internal']))
    .option('--no-wait', 'with --as: do not wait until it is published')
}

/** Throws for what has a meaning only where the training is done here. */
export function refuseLocal({ output_dir, num_processes }: { output_dir?: string; num_processes?: number }): void {
  if (output_dir !== undefined) throw usageError('--output_dir and --as say two things: make a folder here, or a version in the registry.')
  if (num_processes !== undefined) throw usageError('--num_processes is for a training here: a runner of the registry uses what it has.')
}

export function requireOutput({ output_dir }: { output_dir?: string }): string {
  if (output_dir === undefined) throw usageError('Name the folder to make with --output_dir, or with --as the version to make in the registry.')
  return output_dir
}

export interface FinetuneJob extends Published, Omit<FinetuneSpec, 'task' | 'taskFile'> {
  /** `org/name@version` of the patch version to be. */
  readonly patch: string
  readonly task: string | null
  /** Path of a YAML file of one's own. */
  readonly taskFile: string | null
  readonly tag?: string
}

export interface EvolveJob extends Published, Omit<EvolveSpec, 'config'> {
  /** `org/name@version` of the model version to be. */
  readonly model: string
  readonly parentKind: 'continued-pretraining' | 'instruction-tuning'
  /** Path of the Axolotl configuration. */
  readonly config: string
}

/** Has the registry fine-tune a patch on a base of its own, and waits until it is published. */
export async function finetuneInRegistry(session: Session, { wait, taskFile, options, ...rest }: FinetuneJob): Promise<Answer> {
  const version = versionName(rest.patch)
  const registry = await session.connect()
  const { target_modules, ...others } = options
  const text = taskFile === null ? null : await readFile(taskFile, 'utf8')
  const { reference, job } = await registry.requestFinetune({ ...rest, taskFile: text, options: { ...others, target_modules: target_modules === null ? null : [...target_modules] } })
  return follow(session, registry, { kind: 'patches', version, reference, job: job as Job, wait, label: 'Fine-tuning' })
}

/** Has the registry train a model version of its own further, and waits until the result is published. */
export async function evolveInRegistry(session: Session, { wait, config, ...rest }: EvolveJob): Promise<Answer> {
  const version = versionName(rest.model)
  const registry = await session.connect()
  const { reference, job } = await registry.requestEvolution({ ...rest, config: await readFile(config, 'utf8') })
  return follow(session, registry, { kind: 'models', version, reference, job: job as Job, wait, label: 'Evolution' })
}

function versionName(text: string): VersionName {
  const { organization, name, selector, weight } = parseReference(text)
  if (selector === null || weight !== 1) throw usageError(`${text} does not name the version that is to be made: write ${organization}/${name}@1.0.0, say.`)
  return { organization, name, version: selector }
}

interface Making { readonly kind: 'models' | 'patches'; readonly version: VersionName; readonly reference: string; readonly job: Job; readonly wait: boolean; readonly label: string }

/** The training, then the verification of what it made. */
async function follow(session: Session, registry: Registry, { kind, version, reference, job, wait, label }: Making): Promise<Answer> {
  if (!wait) return { json: { reference, job }, text: `${reference} is being made.\nWait for it with: portllm jobs wait ${job.id}` }
  requireSuccess(await waitForJob(registry, job.id, label, session.quiet))
  const { job: verification } = await registry.getUpload(kind, version)
  if (verification !== null) requireSuccess(await waitForJob(registry, verification.id, 'Verifying', session.quiet))
  const made = await (kind === 'patches' ? registry.getPatchVersion(version) : registry.getModelVersion(version))
  if (made.state !== 'published') {
    throw new CliError(EXIT.failure, 'rejected', `The registry has rejected ${reference}: ${made.rejection?.[0]?.message ?? `it is ${made.state}`}`, { details: { reference, rejection: made.rejection } })
  }
  const record = made.training?.record ?? null
  const loss = record?.curve.at(-1)?.loss
  const fields = formatFields([
    ['published', reference], ['digest', made.digest], ['steps', record?.steps], ['last loss', loss?.toPrecision(4)], ['examples', record?.data.examples],
    ['time', record && `${record.wall_seconds.toFixed(1)} s on ${record.device}`],
  ])
  return { json: made, text: fields }
}
