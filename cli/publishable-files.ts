import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { checkPaths } from '../patch/file-path.ts'
import { CliError, EXIT } from './exit.ts'
import { LOCKFILE_NAME } from './lockfile.ts'

/** A file of a model or patch folder. */
export interface LocalFile {
  /** Relative to the folder, with `/`. */
  readonly path: string
  readonly absolute: string
  /** Bytes. */
  readonly size: number
  /** Changes whenever the content may have changed. */
  readonly stamp: string
  readonly modifiedMs: number
}

export interface FolderContent {
  /** Sorted by path. */
  readonly files: readonly LocalFile[]
  readonly skipped: readonly { readonly path: string; readonly reason: string }[]
}

/** The manifest of `portllm init`. */
export const PUBLISH_FILE_NAME = 'portllm.json'
const MAX_FILES = 10_000

const TRAINING_FOLDERS = /^(checkpoint-\d+|global_step\d+|runs|wandb|logs|__pycache__|tmp-checkpoint-\d+)$/
const TRAINING_FILES = /^(optimizer|scheduler|scaler|rng_state|random_states|training_args|trainer_state|sampler)([._-].*)?\.(pt|pth|bin|json|pkl)$|^(zero_to_fp32\.py|latest|all_results\.json|train_results\.json|eval_results\.json)$|^events\.out\.tfevents\./
const PICKLES = /\.(bin|pt|pth|ckpt|pkl|pickle|joblib)$/i

/**
 * What of a folder is published: everything but hidden files, training state and portllm's own files.
 * Refuses pickled weights, since reading them runs code.
 */
export async function publishableFiles(folder: string): Promise<FolderContent> {
  if (!(await stat(folder)).isDirectory()) throw new CliError(EXIT.usage, 'usage', `${folder} is not a folder: give the folder that save_pretrained wrote.`)
  const files: LocalFile[] = []
  const skipped: { path: string; reason: string }[] = []
  await walk(folder, '', files, skipped)
  if (files.length > MAX_FILES) throw new CliError(EXIT.failure, 'too_many_files', `${folder} holds ${files.length} files; a version has at most ${MAX_FILES}.`)
  files.sort((a, b) => (a.path < b.path ? -1 : 1))
  refusePickles(files, folder)
  checkPaths(files.map(({ path }) => path))
  return { files, skipped }
}

async function walk(root: string, below: string, files: LocalFile[], skipped: { path: string; reason: string }[]): Promise<void> {
  for (const entry of await readdir(join(root, below), { withFileTypes: true })) {
    const path = below === '' ? entry.name : `${below}/${entry.name}`
    const reason = reasonToSkip(entry.name, entry.isDirectory(), below === '')
    if (reason !== null) {
      skipped.push({ path, reason })
    } else if (entry.isDirectory()) {
      await walk(root, path, files, skipped)
    } else {
      files.push(await describeFile(root, path))
    }
  }
}

function reasonToSkip(name: string, isFolder: boolean, isTop: boolean): string | null {
  if (name.startsWith('.')) return 'hidden'
  if (isFolder) return TRAINING_FOLDERS.test(name) ? 'training state' : null
  if (TRAINING_FILES.test(name)) return 'training state'
  return isTop && (name === PUBLISH_FILE_NAME || name === LOCKFILE_NAME) ? 'a file of portllm itself' : null
}

/** Links to files are followed: a snapshot in the Hugging Face cache is made of them. */
async function describeFile(root: string, path: string): Promise<LocalFile> {
  const absolute = join(root, path)
  const found = await stat(absolute, { bigint: true })
  if (!found.isFile()) throw new CliError(EXIT.failure, 'not_a_file', `${absolute} is neither a file nor a folder (or a link to a folder, which is not followed). Remove it, or copy what it points to.`)
  return {
    path, absolute, size: Number(found.size), modifiedMs: Number(found.mtimeMs),
    stamp: [found.dev, found.ino, found.size, found.mtimeNs, found.ctimeNs].join(':'),
  }
}

function refusePickles(files: readonly LocalFile[], folder: string): void {
  const pickles = files.filter(({ path }) => PICKLES.test(path)).map(({ path }) => path)
  if (pickles.length === 0) return
  const named = pickles.slice(0, 3).join(', ') + (pickles.length > 3 ? ` and ${pickles.length - 3} more` : '')
  throw new CliError(
    EXIT.failure, 'pickle',
    `${folder} holds ${named}: files of this kind run code when they are read, so the registry does not take them. ` +
      'Save the weights as safetensors (model.save_pretrained(folder, safe_serialization=True)) and remove these files.',
    { details: { files: pickles } },
  )
}
