import { Option, type Command } from 'commander'
import type { ManifestFile } from '../../patch/manifest.ts'
import { parseReference } from '../../patch/reference.ts'
import { datasetDigest, modelDigest, patchDigest } from '../../patch/derivation.ts'
import type { DatasetVersion, ModelVersion, PatchVersion, Registry, Upload } from '../client.ts'
import { CliError, EXIT } from '../exit.ts'
import { digestFiles } from '../file-digests.ts'
import { folderKind, type FolderKind } from '../folder-kind.ts'
import { formatBytes, plural } from '../format.ts'
import { requireSuccess, waitForJob } from '../job-wait.ts'
import { readLocalModel, readLocalPatch } from '../local-model.ts'
import { integerOption } from '../option-values.ts'
import { PARENT_KINDS, readPublishFile, type PublishFile } from '../portllm-file.ts'
import { precheckPatch } from '../precheck.ts'
import { startProgress } from '../progress.ts'
import { publishableFiles, type FolderContent } from '../publishable-files.ts'
import { publishPlan, type PublishPlan } from '../publish-plan.ts'
import { describeReason } from '../reasons.ts'
import { addCommand, answerWith, type Answer, type Session } from '../session.ts'
import { uploadParts } from '../upload.ts'

interface PublishOptions extends PublishFile {
  dryRun?: boolean
  wait: boolean
  skipExisting?: boolean
  concurrency: number
}

const DIGESTS = { model: modelDigest, patch: patchDigest, dataset: datasetDigest }

const EXAMPLES = `
Publishes the folder that PEFT or transformers wrote with save_pretrained. Hidden files and training state
(optimizer, checkpoints) are left out; pickled weights are refused. What portllm.json in the folder says
(see portllm init) need not be said again. Data to train on (train.jsonl and the like) are published with --kind dataset. An interrupted run goes on where it stopped when run again.

Examples:
  portllm publish ./mistral-v1 --name lab/mistral --version 1.0
  portllm publish ./mistral-v2 --name lab/mistral --version 2.0 --parent lab/mistral@1.0 --parent-kind continued-pretraining
  portllm publish ./adapter --name hospital/triage --version 1.0.0 --base lab/mistral@1.0
  portllm publish ./adapter --name hospital/triage --version 1.1.0-rc.1 --base lab/mistral@1.0 --tag next --dry-run
  portllm publish ./notes --kind dataset --name hospital/notes --version 1.0 --visibility internal`

export function addPublish(program: Command): void {
  const command = addCommand(program, 'publish [folder]', 'publish a model, a patch or a dataset')
    .option('--name <org/name>', 'what it is called')
    .option('--version <version>', 'its version: semver for patches, any word for models and datasets')
    .addOption(new Option('--kind <kind>', 'what the folder holds: a dataset, or which where it holds both others').choices(['model', 'patch', 'dataset']))
    .option('--base <org/name@version>', 'patches: the exact model version it was trained on')
    .option('--target-range <range>', 'patches: semver range of the target versions that you vouch for')
    .option('--tag <tag>', 'patches: dist-tag to set (default: latest)')
    .option('--parent <org/name@version>', 'models: the version it was made from')
    .addOption(new Option('--parent-kind <kind>', 'models: how it was made from its parent').choices(PARENT_KINDS))
    .addOption(new Option('--visibility <visibility>', 'who may see it; for a new name').choices(['public', 'internal']))
    .option('--description <text>', 'one line about it')
    .option('--dry-run', 'check and hash, but send nothing')
    .option('--no-wait', 'do not wait until the registry has verified it')
    .option('--skip-existing', 'succeed where the version is published with the same files already')
    .option('--concurrency <n>', 'parallel uploads', integerOption(1, 64), 4)
    .addHelpText('after', EXAMPLES)
  answerWith(command, (session, options: PublishOptions, folder: string | undefined) => publish(session, options, folder ?? '.'))
}

async function publish(session: Session, options: PublishOptions, folder: string): Promise<Answer> {
  const settings = { ...(await readPublishFile(folder)), ...optionSettings(options) }
  const content = await publishableFiles(folder)
  const kind = folderKind(folder, content.files, settings.kind)
  const plan = publishPlan(kind, settings)
  if (content.skipped.length > 0) session.note(`Left out: ${content.skipped.map(({ path, reason }) => `${path} (${reason})`).join(', ')}.`)
  await precheck(session, folder, content, plan, options)
  const progress = startProgress('Hashing', 'bytes', session.quiet)
  const files = await digestFiles(folder, content.files, session.signal, progress).finally(() => progress.stop())
  if (options.dryRun) return dryRunAnswer(plan, kind, files)
  const registry = await session.connect()
  const upload = await startUpload(registry, plan, files, options)
  if (upload === 'published') return publishedAnswer(registry, plan, true)
  return send(session, registry, plan, content, upload, options)
}

function optionSettings(options: PublishOptions): PublishFile {
  const { name, version, kind, base, targetRange, tag, parent, parentKind, visibility, description } = options
  const given = { name, version, kind, base, targetRange, tag, parent, parentKind, visibility, description }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

/** What ingest would refuse is refused here, before anything is hashed or sent. */
async function precheck(session: Session, folder: string, content: FolderContent, plan: PublishPlan, options: PublishOptions): Promise<void> {
  if (plan.kind === 'dataset') return
  const unhashed = content.files.map(({ path, size }) => ({ path, size, etag: '' }))
  if (plan.kind === 'model') {
    await readLocalModel(folder, content.files, unhashed)
    return
  }
  const patch = await readLocalPatch(folder, content.files, unhashed)
  const base = options.dryRun ? null : await baseManifest(await session.connect(), plan.body.base)
  for (const reason of precheckPatch(patch, base, plan.body.base)) session.warn(`Warning: ${describeReason(reason)}`)
}

async function baseManifest(registry: Registry, base: string) {
  const { organization, name, selector } = parseReference(base)
  try {
    return await registry.getModelManifest({ organization, name, version: selector! })
  } catch (error) {
    if (!(error instanceof CliError) || error.code !== 'not_found') throw error
    throw new CliError(EXIT.notFound, 'base_not_found', `The base ${base} is not in this registry, or you may not see it. Publish the model first: portllm publish <folder> --name ${organization}/${name} --version ${selector}.`, { cause: error })
  }
}

/** The state of the upload, begun now or earlier. */
async function startUpload(registry: Registry, plan: PublishPlan, files: readonly ManifestFile[], options: PublishOptions): Promise<Upload | 'published'> {
  const announced = files.map(({ path, size, etag }) => ({ path, size, sha256: etag }))
  try {
    switch (plan.kind) {
      case 'patch': return await registry.draftPatchVersion(plan.version, { ...plan.body, files: announced })
      case 'model': return await registry.draftModelVersion(plan.version, { ...plan.body, files: announced })
      case 'dataset': return await registry.draftDatasetVersion(plan.version, { ...plan.body, files: announced })
    }
  } catch (error) {
    if (!(error instanceof CliError) || error.exit !== EXIT.conflict) throw error
    const upload = await registry.getUpload(plan.resource, plan.version).catch(() => null)
    const isOurs = upload !== null && sameFiles(upload, files)
    if (isOurs && (upload.state === 'verifying' || upload.state === 'uploaded')) return upload
    if (!(await isPublishedWith(registry, plan, files))) throw error
    if (options.skipExisting) return 'published'
    throw new CliError(EXIT.conflict, 'version_exists', `${plan.reference} is published already, with exactly these files: there is nothing to do. --skip-existing makes that a success.`, { details: error.details, cause: error })
  }
}

async function isPublishedWith(registry: Registry, plan: PublishPlan, files: readonly ManifestFile[]): Promise<boolean> {
  const digest = await DIGESTS[plan.kind](files)
  const version = await getVersion(registry, plan).catch(() => null)
  return version?.state === 'published' && version.digest === digest
}

function sameFiles(upload: Upload, files: readonly ManifestFile[]): boolean {
  const known = new Map(upload.files.map(({ path, sha256 }) => [path, sha256]))
  return known.size === files.length && files.every(({ path, etag }) => known.get(path) === etag)
}

async function send(session: Session, registry: Registry, plan: PublishPlan, content: FolderContent, upload: Upload, options: PublishOptions): Promise<Answer> {
  const progress = startProgress('Uploading', 'bytes', session.quiet)
  let sentBytes = 0
  let jobId = upload.job?.id ?? null
  if (upload.state === 'draft' || upload.state === 'uploaded' || jobId === null) {
    const sent = await uploadParts({ registry, kind: plan.resource, version: plan.version, upload, files: content.files, concurrency: options.concurrency, progress }).finally(() => progress.stop())
    sentBytes = sent.sentBytes
    jobId = (await registry.completeUpload(plan.resource, plan.version, upload.digest)).job?.id ?? null
  }
  const held = upload.files.filter((file) => file.held).length
  session.note(`Sent ${formatBytes(sentBytes)}${held > 0 ? `; ${plural(held, 'file')} the registry had already` : ''}.`)
  if (!options.wait) {
    return { json: { reference: plan.reference, state: 'verifying', job: jobId }, text: `${plan.reference} is being verified.\nWait for it with: portllm jobs wait ${jobId}` }
  }
  if (jobId !== null) {
    const job = await waitForJob(registry, jobId, 'Verifying', session.quiet)
    await requirePublished(registry, plan)
    requireSuccess(job)
  }
  return publishedAnswer(registry, plan, false, sentBytes)
}

function getVersion(registry: Registry, { kind, version }: PublishPlan): Promise<PatchVersion | ModelVersion | DatasetVersion> {
  return kind === 'patch' ? registry.getPatchVersion(version) : kind === 'model' ? registry.getModelVersion(version) : registry.getDatasetVersion(version)
}

async function requirePublished(registry: Registry, plan: PublishPlan): Promise<void> {
  const { rejection } = await getVersion(registry, plan)
  if (rejection === null) return
  const lines = rejection.map(({ message, file, tensor }) => `  - ${message}${file ? ` (${file}${tensor ? `, ${tensor}` : ''})` : ''}`)
  throw new CliError(EXIT.failure, 'rejected', `The registry has rejected ${plan.reference}:\n${lines.join('\n')}\nCorrect the files and publish the same version again; nobody has seen it.`, { details: { reference: plan.reference, rejection } })
}

async function publishedAnswer(registry: Registry, plan: PublishPlan, existed: boolean, sentBytes = 0): Promise<Answer> {
  const { digest, files } = await getVersion(registry, plan)
  const total = files.reduce((sum, { size }) => sum + size, 0)
  return {
    json: { reference: plan.reference, kind: plan.kind, digest, files, bytes: total, sentBytes, existed },
    text: `${existed ? 'Was published already' : 'Published'}: ${plan.reference}\n${digest}\n${plural(files.length, 'file')}, ${formatBytes(total)}`,
  }
}

async function dryRunAnswer(plan: PublishPlan, kind: FolderKind, files: readonly ManifestFile[]): Promise<Answer> {
  const digest = await DIGESTS[kind](files)
  const total = files.reduce((sum, { size }) => sum + size, 0)
  return {
    json: { reference: plan.reference, kind, digest, files, bytes: total, dryRun: true },
    text: [`Would publish the ${kind} ${plan.reference}`, digest, ...files.map(({ path, size }) => `  ${path}  ${formatBytes(size)}`), `${plural(files.length, 'file')}, ${formatBytes(total)}`].join('\n'),
  }
}
