import { spawn } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ROOT } from './registry.ts'

export const EDGE_CONFIG = join(ROOT, 'infra/wrangler.jsonc')
export const ENVIRONMENTS = ['dev', 'staging', 'production'] as const
export type EdgeEnvironment = (typeof ENVIRONMENTS)[number]

/** Makes `worker.js` and `bundle-meta.json` of what `wrangler deploy` would upload, without any network. Resolves to what wrangler said. */
export async function buildEdge(environment: EdgeEnvironment, folder: string): Promise<string> {
  await mkdir(folder, { recursive: true })
  const args = ['deploy', '--dry-run', '--config', EDGE_CONFIG, '--env', environment, '--outdir', folder, '--metafile']
  const child = spawn('wrangler', args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, CI: '1', WRANGLER_SEND_METRICS: 'false', WRANGLER_WRITE_LOGS: 'false' } })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (said += text))
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`wrangler deploy --dry-run --env ${environment} failed:\n${said}`)
  return said
}
