import { readFile } from 'node:fs/promises'
import { matchesGlob } from 'node:path'

export interface Instruction { readonly name: string; readonly text: string }
export interface Stage { readonly base: string; readonly name: string | null; readonly instructions: readonly Instruction[] }

/** The stages of a Dockerfile, as far as ours use its language; whatever else is there is an error. */
export async function readDockerfile(path: string): Promise<Stage[]> {
  const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => !/^\s*#/.test(line)).join('\n').replace(/\\\n\s*/g, ' ').split('\n').filter((line) => line.trim() !== '')
  const stages: { base: string; name: string | null; instructions: Instruction[] }[] = []
  for (const line of lines) {
    const [, name, text] = /^([A-Z]+) +(.*)$/.exec(line) ?? []
    if (name === undefined || text === undefined) throw new Error(`${path}: "${line}" is not understood`)
    if (name === 'FROM') {
      const [base, , stage] = text.split(/ +/)
      stages.push({ base: base!, name: stage ?? null, instructions: [] })
    } else {
      stages.at(-1)!.instructions.push({ name, text })
    }
  }
  return stages
}

/** `NAME=value` pairs of an ENV instruction. */
export function readPairs(text: string): [string, string][] {
  return [...text.matchAll(/(\w+)=("[^"]*"|\S+)/g)].map(([, name, value]) => [name!, value!.replaceAll('"', '')])
}

/** Whether a .dockerignore leaves a file in: the last of its lines that names the file or a folder above it decides. */
export function createIgnore(dockerignore: string): (path: string) => boolean {
  const rules = dockerignore.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('#')).map((line) => ({ isExcluded: !line.startsWith('!'), pattern: line.replace(/^!/, '').replace(/\/$/, '') }))
  return (path) => {
    const parts = path.split('/')
    const prefixes = parts.map((_, index) => parts.slice(0, index + 1).join('/'))
    return !(rules.findLast(({ pattern }) => prefixes.some((prefix) => matchesGlob(prefix, pattern)))?.isExcluded ?? false)
  }
}
