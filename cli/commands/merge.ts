import { rm } from 'node:fs/promises'
import { resolve, sep } from 'node:path'
import type { Command } from 'commander'
import { checkWeight } from '../../patch/derivation.ts'
import type { LayOptions } from '../../patch/laying.ts'
import { usageError } from '../exit.ts'
import { formatBytes, formatFields, plural } from '../format.ts'
import { readPatch, readTarget, type LocalPatch, type LocalTarget } from '../local-inputs.ts'
import { planLocalMerge, writeLocalMerge } from '../local-merge.ts'
import { describeProfile, mergeProfile } from '../merge-profile.ts'
import { addLayOptions, chosenOptions, collectOption } from '../option-values.ts'
import { openOutputFolder } from '../output-folder.ts'
import { hubPlace, pushToHub } from '../push.ts'
import { describeReason } from '../reasons.ts'
import { addCommand, answerWith, type Answer, type CommonOptions, type Session } from '../session.ts'

interface MergeOptions extends CommonOptions, Partial<LayOptions> {
  output?: string
  base_model_name_or_path?: string
  peft_model_path?: string[]
  output_dir?: string
  push_to_hub?: string | true
  hub_endpoint?: string
  private?: boolean
  weight?: string[]
  base?: string[]
  force?: boolean
  profile?: boolean
}

const EXAMPLES = `
Needs no registry. The bytes are those that a registry gives for the same files: the weights by the same rules, the
headers because the derivation's id follows from the files' digests. Without a registry the model that a patch was
trained on is known only by --base; patches that hold full values (modules_to_save, biases, trained tokens) or begin
with PiSSA or OLoRA need it, and of others only structure is checked, and a warning says so.

Examples:
  portllm merge ./mistral-v2 ./triage-adapter --output ./merged
  portllm merge ./mistral-v2 ./pissa-adapter --base ./mistral-v1 --output ./merged
  portllm merge ./mistral-v2 ./triage ./style --weight 0.8 --weight 0.5 --output ./merged

The words of the paper's merge_adapters.py say the same. --push_to_hub then puts the merged model into a repository of a
Hub, with the token in HF_TOKEN; without a name the repository is the last two parts of the output folder:
  portllm merge --base_model_name_or_path ./mistral-v2 --peft_model_path ./triage --output_dir ./lab/triage-v2 --push_to_hub
  portllm merge ./mistral-v2 ./triage --output ./merged --push_to_hub lab/triage-v2 --hub_endpoint https://hub.example.org`

export function addMerge(program: Command): void {
  const command = addCommand(program, 'merge [model-folder] [patch-folders...]', 'merge patches onto a model, from folder to folder')
    .option('-o, --output <folder>', 'folder to make')
    .option('-w, --weight <weight>', 'weight of the first patch, then of the second, …; 1 where not given', collectOption)
    .option('-b, --base <model-folder>', 'the exact model that the patches were trained on; repeatable, one for each patch where they differ', collectOption)
    .option('-f, --force', 'replace an output folder that is not empty')
    .option('--profile', 'say where the time went')
    .option('--base_model_name_or_path <folder>', 'the model, in place of the first argument')
    .option('--peft_model_path <folder>', 'a patch, in place of the further arguments; repeatable', collectOption)
    .option('--output_dir <folder>', 'the same as --output')
    .option('--push_to_hub [organization/name]', 'then push the merged model to a repository of a Hub')
    .option('--hub_endpoint <url>', 'address of the Hub (default: HF_ENDPOINT, then https://huggingface.co)')
    .option('--private', 'make the repository a private one, where there is none yet')
    .addHelpText('after', EXAMPLES)
  addLayOptions(command)
  answerWith(command, (session, options: MergeOptions, model: string | undefined, patches: string[]) => mergeAndPush(session, options, places(options, model, patches)))
}

interface Places {
  readonly model: string
  readonly patches: readonly string[]
  readonly output: string
}

/** From the arguments, or from the words of the paper's script. */
function places(options: MergeOptions, model: string | undefined, patches: readonly string[]): Places {
  const { base_model_name_or_path: base, peft_model_path: named = [], output, output_dir } = options
  if (base !== undefined && model !== undefined) throw usageError('The model is named twice: as an argument, and by --base_model_name_or_path.')
  const place = { model: model ?? base, patches: [...patches, ...named], output: output ?? output_dir }
  if (place.model === undefined || place.patches.length === 0) throw usageError('Name the folder of the model, then those of the patches (or --base_model_name_or_path and --peft_model_path).')
  if (place.output === undefined) throw usageError('Name the folder to make with --output (or --output_dir).')
  return { ...place, model: place.model, output: place.output }
}

async function mergeAndPush(session: Session, options: MergeOptions, { model, patches, output }: Places): Promise<Answer> {
  const { push_to_hub: push } = options
  if (push === undefined) return merge(session, options, { model, patches, output })
  const place = hubPlace(push === true ? resolve(output).split(sep).slice(-2).join('/') : push, options)
  const merged = await merge(session, options, { model, patches, output })
  const pushed = await pushToHub(session, output, place)
  return { json: { ...(merged.json as object), pushed }, text: `${merged.text}\n\nPushed to ${pushed}` }
}

async function merge(session: Session, options: MergeOptions, { model, patches: folders, output: path }: Places): Promise<Answer> {
  const weights = (options.weight ?? []).map(readWeight)
  if (weights.length > folders.length) throw usageError(`There are ${plural(weights.length, 'weight')} for ${plural(folders.length, 'patch', 'patches')}.`)
  const bases = options.base ?? []
  if (bases.length > 1 && bases.length !== folders.length) throw usageError(`There are ${bases.length} bases for ${plural(folders.length, 'patch', 'patches')}: name one for all, or one for each.`)
  const output = await openOutputFolder(path, options.force ?? false)
  try {
    const target = await readTarget(session, model)
    const patches: LocalPatch[] = []
    const models = new Map<string, LocalTarget>([[model, target]])
    for (const [index, folder] of folders.entries()) {
      const of = bases.length > 1 ? bases[index] : bases[0]
      if (of !== undefined && !models.has(of)) models.set(of, await readTarget(session, of))
      const base = of === undefined ? null : models.get(of)!
      patches.push(await readPatch(session, { folder, weight: weights[index] ?? 1, base, options: chosenOptions(options) }, target))
      if (base === null) session.warn(`Warning: what ${folder} was trained on is not known here (--base); only names and shapes were checked.`)
      for (const reason of patches.at(-1)!.reasons) {
        if (reason.severity === 'warning') session.warn(`Warning: ${describeReason(reason)}`)
      }
    }
    const plan = await planLocalMerge(target, patches)
    const { bytes, tensors, nonFinite, engine, bytesCloned, merging } = await writeLocalMerge(session, plan, output)
    if (nonFinite > 0) session.warn(`Warning: ${plural(nonFinite, 'element')} of the changed tensors ${nonFinite === 1 ? 'is' : 'are'} NaN or infinite; the model or a weight is at fault.`)
    await output.finish()
    const profile = options.profile ? mergeProfile([target, ...patches], merging) : null
    const files = plan.layout.files.map(({ path, size, etag, changed }) => ({ path, size, etag, changed }))
    return {
      json: {
        derivation: plan.derivation, output: output.output, bytes, bytesCloned, files, changedTensors: tensors, engine,
        target: { folder: model, digest: target.digest },
        patches: patches.map(({ folder, digest, weight, reasons }) => ({ folder, digest, weight, reasons })),
        ...(profile && { profile }),
      },
      text: formatFields([['derivation', plan.derivation], ['output', output.output], ['changed', plural(tensors, 'tensor')], ['written', `${plural(files.length, 'file')}, ${formatBytes(bytes)}${bytesCloned > 0 ? `, of which ${formatBytes(bytesCloned)} shared with the model's own files` : ''}`]]) + (profile ? `\n\n${describeProfile(profile)}` : ''),
    }
  } catch (error) {
    // A merge is quick to run again, and what is half written cannot be told from what is whole.
    await rm(output.partial, { recursive: true, force: true })
    throw error
  }
}

function readWeight(text: string): number {
  const weight = Number(text)
  if (text.trim() === '' || Number.isNaN(weight)) throw usageError(`--weight ${text} is not a number.`)
  return checkWeight(weight)
}
