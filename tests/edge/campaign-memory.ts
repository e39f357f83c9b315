/** `npm run campaign:edge-memory`: a merged model of 2.2 GB through workerd, to a reader that rests; prints a row for docs/campaigns.md. */
process.env['PORTLLM_TEST_DEPLOYMENT'] = 'edge'
const [{ setup: startServices, teardown }, { setup: buildBundle }, { startFileFixture }, { makeVirtualFile, pull }] = await Promise.all([
  import('../setup/server-deployment.ts'), import('../setup/edge-deployment.ts'), import('../contract/file-fixture.ts'), import('./memory.ts'),
])
const GB = 1e9
const MIB = 1024 * 1024
const MAX_GROWTH_MIB = 32

await Promise.all([startServices(), buildBundle()])
const fixture = await startFileFixture()
try {
  const warm = await makeVirtualFile(fixture, 64 * MIB)
  await pull(warm.url)
  const file = await makeVirtualFile(fixture, 2.2 * GB)
  const { bytes, sha256, seconds, idleBytes, peakBytes } = await pull(file.url, { restMs: 5_000 })
  if (bytes !== file.size || sha256 !== file.sha256) throw new Error(`${bytes} bytes with SHA-256 ${sha256} came of ${file.size} with ${file.sha256}`)
  const growth = Math.round((peakBytes - idleBytes) / MIB)
  console.log(`| ${new Date().toISOString().slice(0, 10)} | ${(bytes / GB).toFixed(1)} GB, ${file.extents} extents | ${seconds.toFixed(0)} | ${Math.round(idleBytes / MIB)} MiB | ${Math.round(peakBytes / MIB)} MiB | ${growth <= MAX_GROWTH_MIB ? 'yes' : 'NO'} |`)
  if (growth > MAX_GROWTH_MIB) process.exitCode = 1
} finally {
  await fixture.close()
  await teardown()
}
