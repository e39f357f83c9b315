import { stat } from 'node:fs/promises'
import { dirname, extname } from 'node:path'
import { usageError } from './exit.ts'

export interface OutputFile<F> { readonly path: string; readonly format: F }

/** What is to be written into each file, by its extension. Checked before the work is done, as is its folder. */
export async function checkOutputs<F>(paths: readonly string[], formats: Readonly<Record<string, F>>): Promise<OutputFile<F>[]> {
  return Promise.all(paths.map(async (path) => {
    const format = formats[extname(path).toLowerCase()]
    if (format === undefined) throw usageError(`--output ${path}: the name must end in ${Object.keys(formats).join(', ')}, which says what is written.`)
    const folder = await stat(dirname(path)).catch(() => null)
    if (!folder?.isDirectory()) throw usageError(`--output ${path}: there is no folder ${dirname(path)}.`)
    return { path, format }
  }))
}
