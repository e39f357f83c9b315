import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { CliError, EXIT } from './exit.ts'
import { PUBLISH_FILE_NAME } from './publishable-files.ts'

export const PARENT_KINDS = ['continued-pretraining', 'instruction-tuning', 'fine-tuning', 'other'] as const

const publishFile = z.strictObject({
  kind: z.enum(['model', 'patch', 'dataset']).optional(),
  name: z.string().optional(),
  version: z.string().optional(),
  /** Patches: the exact model version that it was trained on. */
  base: z.string().optional(),
  targetRange: z.string().optional(),
  tag: z.string().optional(),
  /** Models: the version that it was made from. */
  parent: z.string().optional(),
  parentKind: z.enum(PARENT_KINDS).optional(),
  visibility: z.enum(['public', 'internal']).optional(),
  description: z.string().optional(),
})

/** What `portllm.json` says about publishing the folder that it lies in; options override it. */
export type PublishFile = z.infer<typeof publishFile>

export async function readPublishFile(folder: string): Promise<PublishFile> {
  const path = join(folder, PUBLISH_FILE_NAME)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (text === null) return {}
  try {
    return publishFile.parse(JSON.parse(text))
  } catch (error) {
    const where = error instanceof z.ZodError ? `${error.issues[0]?.path.join('.') || 'the whole'}: ${error.issues[0]?.message}` : (error as Error).message
    throw new CliError(EXIT.usage, 'bad_publish_file', `${path} is not valid (${where}). Correct it, or make a new one with \`portllm init --force\`.`)
  }
}
