/**
 * `npm run campaign:7b -- [--layers 32] [--folder build/7b]`: memory of merges into a model of the shape of Llama-2-7B,
 * 13.5 GB. The model's tensors are holes; what the adapters change is computed and written, 13 GB for all linears of all
 * layers. Prints a row for each; ends with 1 where a bound is broken.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ALL_LINEARS } from '../../bench/llama-model.ts'
import { mergeSparseModel, SHAPE, writeSparseModel } from './sparse-model.ts'

const { values } = parseArgs({ options: { layers: { type: 'string', default: String(SHAPE.layers) }, folder: { type: 'string', default: join(import.meta.dirname, '../../build/7b') } } })
const layers = Number(values.layers)
const mega = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`
const giga = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`

console.log('| date | adapter | output | written | seconds | anonymous, of which Node | resident | within 64 MB and 256 MB |\n|---|---|---|---|---|---|---|---|')
try {
  const model = join(values.folder, 'model')
  await writeSparseModel(model)
  for (const adapter of [{ rank: 8, targets: ['q_proj', 'v_proj'] }, { rank: 16, targets: ALL_LINEARS }, { rank: 64, targets: ALL_LINEARS }]) {
    const folder = join(values.folder, 'merge')
    const one = await mergeSparseModel(model, folder, { ...adapter, layers })
    const within = one.merging.anonymous - one.idle.anonymous <= 64e6 && one.merging.resident <= 256e6
    if (!within) process.exitCode = 1
    console.log(`| ${new Date().toISOString().slice(0, 10)} | ${one.adapter} | ${giga(one.bytes)} | ${giga(one.bytesOnDisk)} | ${one.seconds.toFixed(1)} | ${mega(one.merging.anonymous)}, ${mega(one.idle.anonymous)} | ${mega(one.merging.resident)} | ${within ? 'yes' : 'NO'} |`)
    await rm(folder, { recursive: true, force: true })
  }
} finally {
  await rm(values.folder, { recursive: true, force: true })
}
