/**
 * The plan's row of targets.md, on the server deployment: a merged model fetched by its plan, as parallel ranged GETs from
 * the S3, over the same ranges asked of the S3 by itself; and, beside it, the GETs that go through the server:
 *   node bench/serve-plan.ts [--runs 5] [--layers 8]
 * PostgreSQL and Ceph's RADOS gateway are real and on this machine, which server, S3 and client share.
 */
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { blobKey } from '../api/ports/blob-store.ts'
import { systemClock } from '../api/ports/clock.ts'
import { createS3BlobStore } from '../api/ports/s3-blob-store.ts'
import { startCeph, type TestCeph } from '../tests/setup/ceph.ts'
import { startPostgres } from '../tests/setup/postgres.ts'
import { portllm, startRegistry, type Registry } from '../tests/setup/registry.ts'
import { LLAMA_SHAPES, writeLlamaAdapter, writeLlamaModel } from './llama-model.ts'
import { replaceTable } from './readme-table.ts'
import { middle, run, timed } from './timing.ts'

const { values: options } = parseArgs({ options: { runs: { type: 'string', default: '5' }, layers: { type: 'string', default: '8' } } })
const RUNS = Number(options.runs)
const PARALLEL = '8'
const BUCKET = 'portllm-bench'

interface Extent { readonly blob: string | null; readonly offset: number; readonly length: number; readonly url: string; readonly headers: Record<string, string> }
interface Request { readonly url: string; readonly headers: Readonly<Record<string, string>> }

async function publishAndMerge(registry: Registry, folder: string): Promise<string> {
  const cli = { configFolder: join(folder, 'config') }
  const shape = { ...LLAMA_SHAPES['1.1b'], layers: Number(options.layers) }
  await writeLlamaModel(join(folder, 'model'), shape)
  await writeLlamaAdapter(join(folder, 'qv'), shape, { rank: 8, alpha: 16, targets: ['q_proj', 'v_proj'] })
  await portllm(registry, ['org', 'create', 'bench'], cli)
  await portllm(registry, ['publish', join(folder, 'model'), '--name', 'bench/llama', '--version', '1.0'], cli)
  await portllm(registry, ['publish', join(folder, 'qv'), '--name', 'bench/qv', '--version', '1.0.0', '--base', 'bench/llama@1.0'], cli)
  await rm(join(folder, 'model'), { recursive: true })
  for (;;) {
    const { state, storage, id } = await ask(registry, '/v1/models/bench/llama/1.0/merged?patch=bench/qv@1.0.0&storage=materialised')
    if (state === 'ready' && storage === 'materialised') return id
  }
}

async function ask(registry: Registry, path: string): Promise<any> {
  const response = await fetch(registry.url + path, { headers: { Authorization: `Bearer ${registry.token}`, Prefer: 'wait=60' } })
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
  return response.json()
}

/** All by one curl, several at a time. Returns the bytes that came. */
async function fetchAll(requests: readonly Request[], file: string): Promise<number> {
  const one = ({ url, headers }: Request) => [`url = "${url}"`, 'output = "/dev/null"', ...Object.entries(headers).map(([name, value]) => `header = "${name}: ${value}"`), 'fail', 'silent', 'show-error', 'write-out = "%{size_download}\\n"'].join('\n')
  await writeFile(file, requests.map(one).join('\nnext\n'))
  const { stdout } = await run('curl', ['--parallel', '--parallel-max', PARALLEL, '-K', file])
  return stdout.trim().split('\n').reduce((sum, size) => sum + Number(size), 0)
}

async function planned(registry: Registry, id: string): Promise<Extent[]> {
  const { files } = await ask(registry, `/v1/derivations/${id}/plan`)
  return files.flatMap((file: { extents: Extent[] }) => file.extents)
}

async function measure(registry: Registry, ceph: TestCeph, id: string, folder: string) {
  const extents = await planned(registry, id)
  const bytes = extents.reduce((sum, { length }) => sum + length, 0)
  const store = createS3BlobStore({ settings: { bucket: BUCKET, region: 'us-east-1', pathStyle: true, ...ceph }, clock: systemClock })
  const own = await Promise.all(extents.map(({ blob, offset, length }) => store.signGet(blobKey(blob!), { offset, length })))
  const { files } = await ask(registry, `/v1/derivations/${id}`)
  const through: Request[] = files.map(({ path }: { path: string }) => ({ url: `${registry.url}/v1/derivations/${id}/files/${path}`, headers: { Authorization: `Bearer ${registry.token}` } }))
  const list = join(folder, 'curl.txt')
  const whole = async (requests: () => Promise<readonly Request[]> | readonly Request[]) => {
    const got = await fetchAll(await requests(), list)
    if (got !== bytes) throw new Error(`${got} of ${bytes} bytes came`)
  }
  const ways = { 'the S3 by itself': () => own, 'the plan': () => planned(registry, id), 'through the server': () => through } as const
  const seconds = Object.fromEntries(Object.keys(ways).map((name) => [name, [] as number[]]))
  const load = loadavg()[0]!
  for (let round = 0; round <= RUNS; round++) {
    for (const [name, requests] of Object.entries(ways)) {
      const took = await timed(() => whole(requests))
      // The first round warms up.
      if (round > 0) seconds[name]!.push(took)
    }
  }
  const base = seconds['the S3 by itself']!
  return {
    command: `node bench/serve-plan.ts --runs ${RUNS} --layers ${options.layers}`,
    machine: { processor: cpus()[0]?.model, processors: availableParallelism(), loadBefore: load },
    bytes, extents: extents.length,
    rows: Object.entries(seconds).map(([name, all]) => ({ name, seconds: all, median: middle(all), ratio: middle(all.map((one, round) => base[round]! / one)) })),
  }
}

function clientOf({ endpoint, accessKeyId, secretAccessKey }: TestCeph): S3Client {
  return new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials: { accessKeyId, secretAccessKey }, requestChecksumCalculation: 'WHEN_REQUIRED', responseChecksumValidation: 'WHEN_REQUIRED' })
}

async function main(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-bench-plan-'))
  const [database, ceph] = await Promise.all([startPostgres(), startCeph()])
  try {
    await clientOf(ceph).send(new CreateBucketCommand({ Bucket: BUCKET }))
    const registry = await startRegistry(join(folder, 'data'), {
      environment: {
        DATABASE_URL: await database.createDatabase(), PORTLLM_S3_BUCKET: BUCKET, PORTLLM_S3_ENDPOINT: ceph.endpoint,
        PORTLLM_S3_ACCESS_KEY_ID: ceph.accessKeyId, PORTLLM_S3_SECRET_ACCESS_KEY: ceph.secretAccessKey,
      },
    })
    try {
      const results = await measure(registry, ceph, await publishAndMerge(registry, folder), folder)
      await mkdir(join(import.meta.dirname, 'results'), { recursive: true })
      await writeFile(join(import.meta.dirname, 'results', 'serve-plan.json'), `${JSON.stringify(results, null, 2)}\n`)
      const { command, machine, bytes, extents, rows } = results
      const table = [
        `\`${command}\` on ${machine.processors} × ${machine.processor}, load average before ${machine.loadBefore.toFixed(1)}; ${(bytes / 1e9).toFixed(2)} GB in ${extents} ranges, ${PARALLEL} at a time.`,
        '',
        '| merged model, q,v r=8, materialised | median s | GB/s | over the S3 by itself | target |',
        '|---|---|---|---|---|',
        ...rows.map(({ name, median, ratio }) => `| ${name} | ${median.toFixed(2)} | ${(bytes / median / 1e9).toFixed(2)} | ${name === 'the S3 by itself' ? '' : ratio.toFixed(2)} | ${name === 'the plan' ? '≥ 0.9' : ''} |`),
      ].join('\n')
      console.log(table)
      await replaceTable('plan table', table)
    } finally {
      await registry.stop()
    }
  } finally {
    await Promise.all([database.stop(), ceph.stop()])
    await rm(folder, { recursive: true, force: true })
  }
}

await main()
