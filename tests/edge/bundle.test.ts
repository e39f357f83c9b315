import { readFile } from 'node:fs/promises'
import { join, normalize } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { buildEdge, ENVIRONMENTS } from '../setup/edge-bundle.ts'
import { ROOT } from '../setup/registry.ts'

const MAX_GZIPPED_KIB = 700

interface Metafile {
  inputs: Record<string, { imports: { path: string }[] }>
  outputs: Record<string, { inputs: Record<string, { bytesInOutput: number }> }>
}

/** What has no place in a Worker: other deployments' databases, stores and cores, and packages that stand on Node's own sockets and files. */
const FOREIGN = [
  /^(cli|tests|bench)\//, /^gpu-runner\/(?!free-buffer\.ts$)/, /^db\/(pglite|migrate|initialise)/, /^api\/(portllm-server|server|start-|config|connect-|data-folder|dispatcher|listener|observability)/,
  /^api\/ports\/(directory|native|local|read-range|pinned)/,
  /^node_modules\/(@electric-sql|koffi|pg|pino|prom-client|proper-lockfile|node|commander|@opentelemetry\/sdk-trace)\//, /^node_modules\/@hono\/node-server\/dist\/index/,
]

/** Node's modules that packages import, all of which workerd has. A new one is to be looked at: it may be there in name only. */
const BUILTINS = ['assert', 'buffer', 'crypto', 'events', 'fs/promises', 'os', 'perf_hooks', 'stream', 'timers/promises', 'v8']

async function readBundle(folder: string) {
  const meta = JSON.parse(await readFile(join(folder, 'bundle-meta.json'), 'utf8')) as Metafile
  const [, output] = Object.entries(meta.outputs).find(([path]) => path.endsWith('.js'))!
  const used = Object.keys(output.inputs).filter((path) => output.inputs[path]!.bytesInOutput > 0)
  const places = new Map(used.map((path) => [path, normalize(join('infra', path))]))
  const builtins = new Map(used.map((path) => [places.get(path)!, meta.inputs[path]!.imports.map((imported) => /^(?:node:|node-built-in-modules:)(.+)$/.exec(imported.path)?.[1]).filter((name) => name !== undefined)]))
  return { script: await readFile(join(folder, 'worker.js')), files: [...places.values()], builtins }
}

describe.each(ENVIRONMENTS)('what is deployed to %s', (environment) => {
  it('is bound to what it needs, small, and free of what workerd does not have', async () => {
    const folder = join(ROOT, 'build/edge-dry-run', environment)
    const said = await buildEdge(environment, folder)
    for (const binding of ['env.DATABASE (', 'env.DATABASE_CACHED (', 'env.RATE_LIMIT (', 'env.PORTLLM_PUBLIC_URL', 'env.PORTLLM_S3_BUCKET']) expect(said).toContain(binding)
    expect(said).not.toMatch(/SECRET|warning/i)

    const { script, files, builtins } = await readBundle(folder)
    const kib = gzipSync(script).length / 1024
    console.log(`the Worker of ${environment}: ${(script.length / 1024).toFixed(0)} KiB, gzipped ${kib.toFixed(0)} KiB`)
    expect(kib).toBeLessThanOrEqual(MAX_GZIPPED_KIB)
    expect(files.length).toBeGreaterThan(200)
    expect(files.filter((file) => FOREIGN.some((pattern) => pattern.test(file)))).toEqual([])
    const own = [...builtins].filter(([file]) => !file.startsWith('node_modules/')).flatMap(([file, names]) => names.map((name) => `${file}: ${name}`))
    expect(own.filter((line) => !line.endsWith(': crypto'))).toEqual([])
    expect([...new Set([...builtins.values()].flat())].sort()).toEqual(BUILTINS)
  })
})
