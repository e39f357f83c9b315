import { spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Findings } from '../../bench/reproduce/findings.ts'
import type { JournalRow } from '../../bench/reproduce/journal.ts'

const REPRODUCE = join(import.meta.dirname, '..', '..', 'bench', 'reproduce', 'reproduce.ts')
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-reproduce-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

function start(...args: string[]) {
  const child = spawn(process.execPath, [REPRODUCE, '--plan', 'tiny', '--folder', folder, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  return { child, ended, stdout: () => stdout, stderr: () => stderr }
}

async function journal(): Promise<JournalRow[]> {
  const text = await readFile(join(folder, 'results.jsonl'), 'utf8').catch(() => '')
  return text.split('\n').slice(0, -1).map((line) => JSON.parse(line) as JournalRow)
}

test('killed in the middle of an evolution and started again, it goes on where it was', { timeout: 900_000 }, async () => {
  const first = start()
  while (!first.stderr().includes('evolving')) {
    if (first.child.exitCode !== null) throw new Error(first.stderr())
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  first.child.kill('SIGKILL')
  await first.ended
  const before = await journal()
  expect(before.map(({ id }) => id)).toEqual(['data', 'alone/0', 'finetune/kind/seed-1/on-0', 'score/kind/seed-1/from-0/onto-0'])

  // The lock of a process that was killed is noticed after a while.
  await rm(`${folder}.lock`, { recursive: true, force: true })
  const second = start('--json')
  expect([await second.ended, second.stderr().includes('fine-tuning kind on the pretrained model')], second.stderr()).toEqual([0, false])
  const after = await journal()
  expect(after.slice(0, before.length)).toEqual(before)
  expect(new Set(after.map(({ key }) => key)).size).toBe(after.length)

  const findings = JSON.parse(second.stdout()) as Findings
  expect(findings.done).toBe(findings.steps)
  expect(after).toHaveLength(findings.steps)
  const [base, evolved] = findings.comparisons
  // 120 questions with four answers: what the patch taught is well beyond chance, on its base and ported.
  expect(base!.ported[0]!.value).toBeGreaterThan(base!.alone!.value)
  expect(evolved!.ported).toHaveLength(1)
  expect(evolved!.fresh).toHaveLength(1)
  expect(findings.ports).toHaveLength(1)
  expect(findings.ports[0]!.figures['relative drift']).toBeGreaterThan(0)
  expect(findings.costs.port!.cost.peak_memory_bytes).toBeLessThan(findings.costs.finetune!.cost.peak_memory_bytes)
  expect(await readFile(join(folder, 'report.md'), 'utf8')).toContain('All 10 steps of `--plan tiny`')
  expect(await readFile(join(folder, 'reproduction-scores.svg'), 'utf8')).toMatch(/^<svg .*kind/s)
  expect((await readdir(folder)).filter((name) => name.startsWith('merged'))).toEqual([])
})

test('when all is done it does nothing again; a folder that was lost is made again', { timeout: 900_000 }, async () => {
  const idle = start('--json')
  expect(await idle.ended, idle.stderr()).toBe(0)
  expect(idle.stderr()).toBe('')

  await rm(join(folder, 'data'), { recursive: true })
  const again = start('--only', 'data')
  expect(await again.ended, again.stderr()).toBe(0)
  expect(again.stderr()).toContain('1 of 10')
})

test('what it cannot do it says in a sentence', async () => {
  for (const [args, message] of [[['--seeds', '1,x'], '--seeds 1,x: whole numbers'], [['--only', 'everything'], '--only everything: there are data,'], [['--plan', 'large'], '--plan large: there are tiny and small']] as const) {
    const run = start(...args)
    expect(await run.ended).toBe(1)
    expect(run.stderr()).toContain(message)
  }
  await writeFile(join(folder, 'not-a-folder'), '')
  const run = start('--folder', join(folder, 'not-a-folder', 'inner'))
  expect([await run.ended, run.stderr()]).toEqual([1, expect.stringContaining('ENOTDIR')])
})
