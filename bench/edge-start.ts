/**
 * `npm run bench:edge`: how long a fresh Worker takes to its first answer, and a warm one to the next; memory of workerd.
 * The Worker is the bundle that would be uploaded, on a real PostgreSQL.
 */
import { loadavg } from 'node:os'
import { gzipSync } from 'node:zlib'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

process.env['PORTLLM_TEST_DEPLOYMENT'] = 'edge'
const [{ setup: startServices, teardown }, { setup: buildBundle }, { startTestRegistry }, { cacheUrl }, { DEV_BUNDLE, startEdge }, { freePort }, { middle }, { findWorkerd, residentBytes }] = await Promise.all([
  import('../tests/setup/server-deployment.ts'), import('../tests/setup/edge-deployment.ts'), import('../tests/contract/harness.ts'), import('../tests/setup/edge-registry.ts'),
  import('../tests/setup/edge.ts'), import('../tests/setup/free-port.ts'), import('./timing.ts'), import('../tests/edge/memory.ts'),
])
const ROUNDS = 7
const WARM = 100
const MIB = 1024 * 1024

const load = loadavg()[0]!.toFixed(1)
await Promise.all([startServices(), buildBundle()])
const registry = await startTestRegistry()
const { databaseUrl, s3 } = registry.config
const known = await findWorkerd()
const [start, first, next, plain, memory]: number[][] = [[], [], [], [], []]
try {
  for (let round = 0; round < ROUNDS; round++) {
    const port = await freePort()
    const started = performance.now()
    const edge = await startEdge({ databaseUrl: databaseUrl!, cachedDatabaseUrl: cacheUrl(databaseUrl!), s3: s3!, port })
    start!.push(performance.now() - started)
    const ask = async (path: string, headers: Record<string, string> = {}) => {
      const started = performance.now()
      const response = await fetch(edge.url + path, { headers })
      await response.arrayBuffer()
      if (response.status !== 200) throw new Error(`the Worker answered ${response.status}`)
      return performance.now() - started
    }
    const whoami = () => ask('/v1/whoami', { Authorization: `Bearer ${registry.adminToken}` })
    const repeat = async (work: () => Promise<number>) => {
      const taken: number[] = []
      for (let i = 0; i < WARM; i++) taken.push(await work())
      return middle(taken)
    }
    first!.push(await whoami())
    next!.push(await repeat(whoami))
    plain!.push(await repeat(() => ask('/docs')))
    const [workerd] = (await findWorkerd()).filter((pid) => !known.includes(pid))
    memory!.push(await residentBytes(workerd!))
    await edge.stop()
  }
} finally {
  await registry.close()
  await teardown()
}
const script = await readFile(join(DEV_BUNDLE, 'worker.js'))
console.log(`Medians of ${ROUNDS} starts, load average before ${load}.

| what | |
|---|---|
| bundle | ${(script.length / 1024).toFixed(0)} KiB, gzipped ${(gzipSync(script).length / 1024).toFixed(0)} KiB |
| workerd started, the bundle compiled and its modules run | ${middle(start!).toFixed(0)} ms |
| the first answer then, \`GET /v1/whoami\` with a token | ${middle(first!).toFixed(0)} ms |
| the next ones | ${middle(next!).toFixed(1)} ms |
| those that need no database, \`GET /docs\` | ${middle(plain!).toFixed(1)} ms |
| resident memory of workerd after ${WARM} of each | ${(middle(memory!) / MIB).toFixed(0)} MiB |`)
