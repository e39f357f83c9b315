/**
 * `npm run dev:edge`: the Worker in workerd, with a PostgreSQL and an S3 of its own where the environment names none, a
 * dispatcher and runners. All of it is new, and goes with this process.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { readConfig } from '../../api/config.ts'
import { createConsoleLog } from '../../api/ports/log.ts'
import { startCeph } from '../setup/ceph.ts'
import { buildEdge } from '../setup/edge-bundle.ts'
import { startEdgeRegistry } from '../setup/edge-registry.ts'
import { DEV_BUNDLE } from '../setup/edge.ts'
import { startPostgres } from '../setup/postgres.ts'

const { values } = parseArgs({ options: { port: { type: 'string', default: '8787' }, json: { type: 'boolean', default: false }, 'no-runners': { type: 'boolean', default: false } } })
const undo: (() => Promise<unknown>)[] = []
let ending: Promise<void> | undefined

async function end(): Promise<void> {
  for (const step of undo.splice(0).reverse()) await step()
}

/** Miniflare listens too, as soon as it starts, and would end this process before its services. */
function endOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.removeAllListeners(signal).once(signal, () => void (ending ??= end().then(() => process.exit(0), (error: Error) => {
      console.error(error)
      process.exit(1)
    })))
  }
}

try {
  endOnSignals()
  const given = readConfig({ port: values.port, startRunners: !values['no-runners'] }, process.env)
  const data = await mkdtemp(join(tmpdir(), 'portllm-edge-'))
  undo.push(() => rm(data, { recursive: true, force: true }))
  const config = { ...given, data, databaseUrl: given.databaseUrl ?? (await ownDatabase()), s3: given.s3 ?? (await ownBucket()) }
  await buildEdge('dev', DEV_BUNDLE)
  const registry = await startEdgeRegistry(config, { log: createConsoleLog(), onLog: (line) => console.error(line) })
  undo.push(registry.close)
  endOnSignals()
  const { url, bootstrapToken } = registry
  console.log(values.json ? JSON.stringify({ url, bootstrapToken }) : `The Worker is at ${url} (API: ${url}/docs).${bootstrapToken === null ? '' : `\n\nThe administrator's token:\n\n  ${bootstrapToken}\n\n  portllm login ${url}`}\n\nCtrl-C ends it, with its database and bucket.`)
} catch (error) {
  await end()
  throw error
}

async function ownDatabase(): Promise<string> {
  const postgres = await startPostgres()
  undo.push(postgres.stop)
  return postgres.createDatabase()
}

async function ownBucket() {
  const { endpoint, accessKeyId, secretAccessKey, stop } = await startCeph()
  undo.push(stop)
  return { bucket: 'portllm-dev', endpoint, accessKeyId, secretAccessKey, region: 'us-east-1', pathStyle: true }
}
