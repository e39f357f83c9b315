import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { RULES } from '../patch/derivation.ts'
import { CliError, EXIT } from './exit.ts'

export const LOCKFILE_NAME = 'portllm.lock'

const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/)
const hex = z.string().regex(/^[0-9a-f]{64}$/)

const lockfile = z.strictObject({
  format: z.literal('portllm.lock/1'),
  /** Address of the registry that it was fetched from. */
  registry: z.string(),
  kind: z.enum(['merged', 'model', 'patch']),
  /** The target of the merge, or the version itself. */
  target: z.strictObject({ reference: z.string(), digest }),
  /** In the order of summation. */
  patches: z.array(z.strictObject({ reference: z.string(), digest, weight: z.number() })),
  /** The rules of arithmetic in use; none where nothing was merged. */
  rules: z.array(z.enum(RULES)),
  /** What was asked for and made a difference to the merge. */
  options: z.strictObject({ absolute: z.literal('replace').optional(), tied: z.literal('untie').optional() }).default({}),
  derivation: hex.nullable(),
  files: z.array(z.strictObject({ path: z.string(), size: z.int().nonnegative(), etag: hex })),
  /** The tensors that the merge changed, with the digests of their bytes. */
  tensors: z.array(z.strictObject({ name: z.string(), digest })),
})

/** Exactly what was fetched: enough to get the same bytes again, also after a yank. */
export type Lockfile = z.infer<typeof lockfile>

export function formatLockfile(lock: Lockfile): string {
  return `${JSON.stringify(lock, null, 2)}\n`
}

export async function readLockfile(path: string): Promise<Lockfile> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new CliError(EXIT.notFound, 'no_lockfile', `There is no lockfile ${path}. \`portllm get\` writes one into its output folder.`)
    throw error
  })
  try {
    return lockfile.parse(JSON.parse(text))
  } catch (error) {
    const where = error instanceof z.ZodError ? `${error.issues[0]?.path.join('.') || 'the whole'}: ${error.issues[0]?.message}` : (error as Error).message
    throw new CliError(EXIT.failure, 'bad_lockfile', `${path} is not a lockfile of portllm (${where}). Restore it, or fetch again without it.`)
  }
}
