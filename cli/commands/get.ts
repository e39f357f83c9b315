import { Option, type Command } from 'commander'
import semver from 'semver'
import type { LayOptions } from '../../patch/laying.ts'
import type { MergeStorage } from '../../patch/merge-storage.ts'
import { isDistTag, parseReference } from '../../patch/reference.ts'
import type { Registry } from '../client.ts'
import { CliError, EXIT, usageError } from '../exit.ts'
import { describeStorage, formatBytes, formatFields, plural } from '../format.ts'
import { getInto } from '../get.ts'
import { lockedSource, mergedSource, versionSource, type GetSource, type SourceKind } from '../get-source.ts'
import { LOCKFILE_NAME, readLockfile, type Lockfile } from '../lockfile.ts'
import { addLayOptions, chosenOptions, collectOption, integerOption } from '../option-values.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface GetOptions extends CommonOptions, Partial<LayOptions> {
  patch?: string[]
  output: string
  kind?: SourceKind
  storage?: MergeStorage
  lock?: string
  frozen?: boolean
  force?: boolean
  concurrency: number
}

const EXAMPLES = `
Fetches a merged model (a target with patches), a model version, or a patch. The files lie in <output>.partial
until every byte is verified; run the same command again to go on after an interruption. A patch is written
organization/name[@version, range or tag][:weight]. The output holds ${LOCKFILE_NAME}, which names exactly what was
fetched: with it the same bytes can be had again, also after a patch has been yanked.

Examples:
  portllm get lab/mistral@2.0 --patch hospital/triage@^1 --output ./merged
  portllm get lab/mistral@2.0 --patch hospital/triage:0.8 --patch lab/style@2.1.0:0.5 --output ./merged
  portllm get --lock ./merged/${LOCKFILE_NAME} --output ./same-bytes
  portllm get lab/mistral@2.0 --patch hospital/triage --frozen --output ./merged   # fails unless ./${LOCKFILE_NAME} says the same
  portllm get lab/mistral@2.0 --output ./mistral`

export function addGet(program: Command): void {
  const command = addCommand(program, 'get [target]', 'fetch a merged model, a model version or a patch')
    .option('-p, --patch <patch>', 'patch to merge onto the target; repeatable, in the order of summation', collectOption)
    .requiredOption('-o, --output <folder>', 'folder to make')
    .addOption(new Option('--kind <kind>', 'what the target is, where a model and a patch have the same name').choices(['model', 'patch']))
    .addOption(new Option('--storage <storage>', 'how the registry keeps the merged model; without it, as suits the patches').choices(['computed', 'materialised']))
    .option('--lock <file>', 'fetch exactly what this lockfile says')
    .option('--frozen', `the same with ./${LOCKFILE_NAME}`)
    .option('-f, --force', 'replace an output folder that is not empty')
    .option('--concurrency <n>', 'parallel downloads', integerOption(1, 64), 6)
    .addHelpText('after', EXAMPLES)
  addLayOptions(command)
  answerWith(command, (session, options: GetOptions, target: string | undefined) => get(session, options, target))
}

async function get(session: Session, options: GetOptions, target: string | undefined): Promise<Answer> {
  if (options.storage !== undefined && (options.lock !== undefined || options.frozen)) throw usageError('--storage does not go with a lockfile: use "portllm storage" for a merged model that exists.')
  if ((options.absolute ?? options.tied) !== undefined && (options.lock !== undefined || options.frozen)) throw usageError('--absolute and --tied do not go with a lockfile, which says how its merge was made.')
  const lockPath = options.lock ?? (options.frozen ? LOCKFILE_NAME : null)
  if (lockPath === null && target === undefined) throw usageError('The target is missing: write organization/model@version, or give --lock with a lockfile.')
  for (const text of [...(target === undefined ? [] : [target]), ...(options.patch ?? [])]) parseReference(text)
  const lock = lockPath === null ? null : await readLockfile(lockPath)
  if (lock !== null) requireAsked(lock, lockPath!, target, options.patch)
  const registry = await session.connect()
  const source = lock === null ? await askedSource(session, registry, options, target!) : await lockedSource(registry, lock, session.quiet)
  const result = await getInto(session, registry, { ...source, files: source.lock.files, derivation: source.lock.derivation }, options.output, options)
  const { kind, target: { reference }, patches, derivation, files } = source.lock
  const bytes = files.reduce((sum, { size }) => sum + size, 0)
  return {
    json: { kind, target: source.lock.target, patches, derivation, output: result.output, files, bytes, ...(source.kept && { storage: source.kept.storage, storageReason: source.kept.storageReason, storedBytes: source.kept.storedBytes }), fetchedBytes: result.fetchedBytes, repaired: result.repaired },
    text: formatFields([
      [kind, reference], ...patches.map((patch) => ['patch', `${patch.reference}${patch.weight === 1 ? '' : ` with weight ${patch.weight}`}`] as const),
      ['derivation', derivation], ['registry', source.kept && describeStorage(source.kept)], ['output', result.output], ['verified', `${plural(files.length, 'file')}, ${formatBytes(bytes)} (${formatBytes(result.fetchedBytes)} fetched)`],
    ]),
  }
}

function askedSource(session: Session, registry: Registry, options: GetOptions, target: string): Promise<GetSource> {
  const patches = options.patch ?? []
  const forMerges = (['storage', 'absolute', 'tied'] as const).find((name) => options[name] !== undefined)
  if (patches.length === 0 && forMerges !== undefined) throw usageError(`--${forMerges} is for merged models: name a --patch as well.`)
  if (patches.length === 0) return versionSource(registry, target, options.kind)
  if (options.kind === 'patch') throw usageError('--kind patch does not go with --patch: patches are merged onto a model.')
  return mergedSource(registry, target, patches, { ...chosenOptions(options), storage: options.storage }, session.quiet)
}

/** What is asked beside a lockfile must be what the lockfile says; ranges and tags are what it has settled. */
function requireAsked(lock: Lockfile, path: string, target: string | undefined, patches: readonly string[] | undefined): void {
  const differs = (what: string, asked: string, found: string) =>
    new CliError(EXIT.conflict, 'lock_mismatch', `${path} is for the ${what} ${found}, not ${asked}. Leave --lock and --frozen away to fetch that and get a new lockfile.`)
  if (target !== undefined && !(lock.kind === 'patch' ? isSelectedBy(lock.target.reference, target) : lock.target.reference === target)) throw differs(lock.kind === 'patch' ? 'patch' : 'target', target, lock.target.reference)
  if (patches === undefined) return
  const found = lock.patches.map(({ reference, weight }) => `${reference}${weight === 1 ? '' : `:${weight}`}`).join(', ') || 'no patch'
  const isSame = patches.length === lock.patches.length && patches.every((text, index) => {
    const { reference, weight } = lock.patches[index]!
    return parseReference(text).weight === weight && isSelectedBy(reference, text)
  })
  if (!isSame) throw differs('patches', patches.join(', '), found)
}

/** Whether `asked` may mean the locked version: the same name, and not another version or range. A tag may have meant it. */
function isSelectedBy(locked: string, asked: string): boolean {
  const [have, want] = [parseReference(locked), parseReference(asked)]
  if (have.organization !== want.organization || have.name !== want.name) return false
  if (want.selector === null || want.selector === have.selector) return true
  return semver.validRange(want.selector) !== null ? semver.satisfies(have.selector!, want.selector) : isDistTag(want.selector)
}
