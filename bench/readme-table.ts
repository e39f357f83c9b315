import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Puts a table in its place in bench/README.md: between `<!-- name -->` and `<!-- end of name -->`. */
export async function replaceTable(name: string, table: string): Promise<void> {
  const path = join(import.meta.dirname, 'README.md')
  const text = await readFile(path, 'utf8')
  const [begin, end] = [`<!-- ${name} -->`, `<!-- end of ${name} -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`${path} has no place for ${name}`)
  await writeFile(path, `${text.slice(0, from + begin.length)}\n${table}\n${text.slice(to)}`)
}
