/**
 * `npm run campaign:fuzz -- [--seconds 120] [--seed N] [--keep]`: each fuzz target for so long, at low priority, from its
 * committed inputs. Prints a row for each; ends with 1 where something was found, and says the input.
 * `--keep` commits to the corpus what reached something new, minimized.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { buildFuzzTarget, fuzz, minimized, readCorpus, TARGETS, writeCorpus } from './fuzz-target.ts'

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '120' }, seed: { type: 'string', default: String(Date.now() % 2 ** 31) }, keep: { type: 'boolean', default: false } } })
const seconds = Number(values.seconds)
const seed = Number(values.seed)

console.log('| date | target | seed | seconds | executions | edges | result |\n|---|---|---|---|---|---|---|')
for (const target of TARGETS) {
  const program = await buildFuzzTarget(target)
  const folder = await mkdtemp(join(tmpdir(), `portllm-campaign-${target}-`))
  const corpus = await readCorpus(target)
  await Promise.all(corpus.map((content, at) => writeFile(join(folder, String(at)), content)))
  const run = await fuzz(program, folder, { seed, seconds, nice: true })
  const found = run.finding !== 'ok'
  console.log(`| ${new Date().toISOString().slice(0, 10)} | ${target} | ${seed} | ${run.seconds.toFixed(0)} | ${run.executions.toLocaleString('en')} | ${run.coverage} | ${found ? 'FOUND' : 'nothing found'} |`)
  if (found) {
    console.error(`${target}: ${run.finding}\ninput, in base64: ${run.input?.toString('base64') ?? 'none'}`)
    process.exitCode = 1
  } else if (values.keep) {
    await writeCorpus(target, await minimized(program, folder))
  }
  await rm(folder, { recursive: true })
}
