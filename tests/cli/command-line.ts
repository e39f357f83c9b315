import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cp, mkdtemp, readFile, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startTestRegistry, type TestRegistry } from '../contract/harness.ts'
import { startFaultyProxy, type FaultyProxy } from './faulty-proxy.ts'

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))
const FIXTURES = fileURLToPath(new URL('../fixtures', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
  /** What `--json` printed. */
  readonly json: any
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly stdin?: string
  readonly cwd?: string
  readonly onStart?: (child: ChildProcess) => void
}

export interface CommandLine {
  readonly registry: TestRegistry
  readonly proxy: FaultyProxy
  /** A folder of the test file's own, for whatever it writes. */
  readonly folder: string
  /** Runs the real command in a process of its own. */
  run(args: readonly string[], options?: RunOptions): Promise<Ended>
  /** The same, where it must succeed; gives what `--json` printed. */
  ok(...args: string[]): Promise<any>
  close(): Promise<void>
}

/** A registry, with runners unless told otherwise, a proxy before it, and a command line that is logged in by its environment. */
export async function startCommandLine({ startRunners = true } = {}): Promise<CommandLine> {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-cli-'))
  const proxy = await startFaultyProxy()
  const registry = await startTestRegistry({ publicUrl: proxy.url, startRunners })
  proxy.upstream = registry.url
  const base = {
    ...process.env, XDG_CONFIG_HOME: join(folder, 'config'), XDG_CACHE_HOME: join(folder, 'cache'),
    PORTLLM_REGISTRY: proxy.url, PORTLLM_TOKEN: registry.adminToken,
  }
  const run: CommandLine['run'] = (args, options = {}) => runMain(args, { ...base, ...options.env }, options)
  return {
    registry, proxy, folder, run,
    async ok(...args) {
      const ended = await run([...args, '--json'])
      if (ended.code !== 0) throw new Error(`portllm ${args.join(' ')} ended with ${ended.code ?? ended.signal}:\n${ended.stderr}`)
      return ended.json
    },
    async close() {
      await registry.close()
      await proxy.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}


async function runMain(args: readonly string[], env: Readonly<Record<string, string | undefined>>, { stdin, cwd, onStart }: RunOptions): Promise<Ended> {
  const clean = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined))
  const child = spawn(process.execPath, [MAIN, ...args], { env: clean, cwd, stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] })
  child.stdin?.end(stdin)
  onStart?.(child)
  const [stdout, stderr, ended] = await Promise.all([
    readAll(child.stdout!), readAll(child.stderr!),
    new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => child.once('close', (code, signal) => resolve({ code, signal }))),
  ])
  return { ...ended, stdout, stderr, json: args.includes('--json') && stdout !== '' ? JSON.parse(stdout) : undefined }
}

async function readAll(stream: NodeJS.ReadableStream): Promise<string> {
  let text = ''
  for await (const chunk of stream.setEncoding('utf8')) text += chunk
  return text
}

/** A copy that a test may change; gives its folder. */
export async function copyFixture(cli: CommandLine, name: string): Promise<string> {
  const folder = join(cli.folder, `fixture-${name}`)
  await cp(join(FIXTURES, name), folder, { recursive: true })
  return folder
}

/** SHA-256 of every file of a folder but portllm's own, by path. */
export async function digests(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name === 'portllm.lock') continue
    const path = join(entry.parentPath, entry.name)
    found[path.slice(folder.length + 1)] = createHash('sha256').update(await readFile(path)).digest('hex')
  }
  return Object.fromEntries(Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** Resolves once `isTrue`; a condition that does not come about is the test's own timeout. */
export async function eventually(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await new Promise((resolve) => setTimeout(resolve, 20))
}
