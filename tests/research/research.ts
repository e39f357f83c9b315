import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { ROOT } from '../setup/registry.ts'

export const LLAMA = join(ROOT, 'tests/fixtures/llama')

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** The local command line in a folder of the test file's own, with nothing but Python behind it. */
export class Research {
  readonly folder: string

  private constructor(folder: string) {
    this.folder = folder
  }

  static async start(): Promise<Research> {
    await pythonPath()
    return new Research(await mkdtemp(join(tmpdir(), 'portllm-research-')))
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts)
  }

  spawn(args: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    return spawn('node', [join(ROOT, 'cli/main.ts'), ...args], { cwd: this.folder, env: { ...this.environment(), ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  }

  async run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
    const child = this.spawn(args, env)
    const closed = new Promise<number | null>((resolve) => child.once('close', resolve))
    const [stdout, stderr] = await Promise.all([child.stdout!, child.stderr!].map(textOf))
    return { code: await closed, stdout: stdout!, stderr: stderr! }
  }

  /** The same with --json, where it must succeed. */
  async ok(...args: string[]): Promise<any> {
    const { code, stdout, stderr } = await this.run([...args, '--json'])
    if (code !== 0) throw new Error(`portllm ${args.join(' ')} ended with ${code}:\n${stderr}`)
    return JSON.parse(stdout)
  }

  /** The same with --json, where it must fail: its error. */
  async fails(...args: string[]): Promise<any> {
    const { code, stdout, stderr } = await this.run([...args, '--json'])
    if (code === 0) throw new Error(`portllm ${args.join(' ')} did not fail:\n${stdout}${stderr}`)
    return JSON.parse(stdout).error
  }

  /** What a script of tests/python prints as JSON. */
  async python(script: string, ...args: string[]): Promise<any> {
    const { stdout } = await promisify(execFile)(await pythonPath(), [join(ROOT, 'tests/python', script), ...args], { cwd: this.folder, env: { ...this.environment(), PYTHONPATH: join(ROOT, 'gpu-runner/python') }, maxBuffer: 64 << 20 })
    return JSON.parse(stdout)
  }

  /** Writes a file of JSON lines, or of text. */
  async write(path: string, content: string | readonly unknown[]): Promise<string> {
    const file = this.path(path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, typeof content === 'string' ? content : content.map((row) => `${JSON.stringify(row)}\n`).join(''))
    return file
  }

  async read(path: string): Promise<any[]> {
    return (await readFile(this.path(path), 'utf8')).trim().split('\n').map((line) => JSON.parse(line) as unknown)
  }

  close(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true })
  }

  /** One thread is quickest for models of this size, and the Hub is out of reach. */
  private environment(): NodeJS.ProcessEnv {
    const { HF_TOKEN: _, HF_ENDPOINT: __, ...rest } = process.env
    return { ...rest, OMP_NUM_THREADS: '1', HF_HUB_OFFLINE: '1', HF_HOME: this.path('hf'), XDG_CONFIG_HOME: this.path('config'), XDG_CACHE_HOME: this.path('cache') }
  }
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  let text = ''
  for await (const chunk of stream.setEncoding('utf8')) text += chunk
  return text
}
