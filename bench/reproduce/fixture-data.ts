import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { MadeData } from './make-data.ts'
import type { Plan } from './plan.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const FIXTURES = join(ROOT, 'tests', 'fixtures')

interface Question {
  readonly prompt: string
  readonly choices: readonly string[]
  readonly answer: number
}

/** The same folder as sources/make.py's, of what the repository holds: for the tests, without any download. */
export async function makeFixtureData(plan: Plan, output: string): Promise<MadeData> {
  const folder = `${output}.partial`
  await rm(folder, { recursive: true, force: true })
  await cp(join(FIXTURES, 'llama', 'base'), join(folder, 'base'), { recursive: true })
  const made: MadeData = { packages: [], tasks: {}, texts: {} }
  for (const [name, sizes] of Object.entries(plan.tasks)) {
    const questions = (await readFile(join(FIXTURES, 'eval', `${name}.jsonl`), 'utf8')).trim().split('\n').map((line) => JSON.parse(line) as Question)
    const choices = questions[0]!.choices.map((choice) => choice.trim())
    const rows = questions.map(({ prompt, answer }) => ({ text: prompt, label: answer }))
    await writeRows(join(folder, 'tasks', name, 'train.jsonl'), rows.slice(0, sizes.train))
    await writeRows(join(folder, 'tasks', name, 'test.jsonl'), rows.slice(sizes.train, sizes.train + sizes.test))
    await writeFile(join(folder, 'tasks', `${name}.yaml`), taskYaml(name, choices))
    made.tasks[name] = { about: 'questions of the tests about WordNet', prompt: '{{text}}', choices, sizes, example: rows[0]! }
  }
  for (const { text, characters } of plan.evolutions) {
    const rows = await documentation(characters)
    await writeRows(join(folder, 'texts', text, 'train.jsonl'), rows)
    made.texts[text] = { about: 'the documentation of this repository', characters: rows.reduce((sum, row) => sum + row.text.length, 0) }
  }
  await rm(output, { recursive: true, force: true })
  await rename(folder, output)
  return made
}

function taskYaml(name: string, choices: readonly string[]): string {
  return [
    `task: ${name}`, 'training_split: train', 'test_split: test', 'output_type: multiple_choice', 'doc_to_text: "{{text}}"', 'doc_to_target: label', `doc_to_choice: ${JSON.stringify(choices)}`,
    'metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]', 'metadata: {version: 1}', '',
  ].join('\n')
}

async function documentation(characters: number): Promise<{ text: string }[]> {
  const folder = join(ROOT, 'docs')
  const rows: { text: string }[] = []
  let length = 0
  for (const name of (await readdir(folder)).filter((file) => file.endsWith('.md')).sort()) {
    for (const text of (await readFile(join(folder, name), 'utf8')).split('\n\n')) {
      if (length >= characters) return rows
      rows.push({ text })
      length += text.length
    }
  }
  return rows
}

async function writeRows(path: string, rows: readonly unknown[]): Promise<void> {
  await mkdir(join(path, '..'), { recursive: true })
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
}
