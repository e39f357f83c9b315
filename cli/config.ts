import { randomUUID } from 'node:crypto'
import { readFile, rename, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { makeFolder } from '../gpu-runner/make-folder.ts'
import { CliError, EXIT, usageError } from './exit.ts'

/** Where a registry started with `npm start` listens. */
export const DEFAULT_REGISTRY = 'http://127.0.0.1:8080'

interface ConfigFile {
  /** The registry that is used when none is named. */
  registry: string
  /** Tokens by registry URL: a token is only ever sent to the registry that it is for. */
  tokens: Record<string, string>
}

export interface Connection {
  /** Without a trailing slash. */
  readonly registry: string
  readonly token: string | null
}

export function configPath(): string {
  const base = process.env.XDG_CONFIG_HOME || join(homedir(), '.config')
  return join(base, 'portllm', 'config.json')
}

/** `--registry` before PORTLLM_REGISTRY before the login; PORTLLM_TOKEN before the stored token of that registry. */
export async function readConnection(option: string | undefined): Promise<Connection> {
  const file = await readConfig()
  const registry = checkRegistryUrl(option || process.env.PORTLLM_REGISTRY || file?.registry || DEFAULT_REGISTRY)
  return { registry, token: process.env.PORTLLM_TOKEN || file?.tokens[registry] || null }
}

/** The URL without a trailing slash. Throws for what is not an http or https URL. */
export function checkRegistryUrl(text: string): string {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol)) throw usageError(`${JSON.stringify(text)} is not the address of a registry: write one such as https://registry.example.org`)
  if (url.username || url.password) throw usageError('The address of a registry must not hold a user name or password: use `portllm login`.')
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '')
}

export async function storeLogin(registry: string, token: string): Promise<void> {
  const file = (await readConfig()) ?? { registry, tokens: {} }
  await writeConfig({ registry, tokens: { ...file.tokens, [registry]: token } })
}

/** True where there was a token to forget. */
export async function forgetLogin(registry: string): Promise<boolean> {
  const file = await readConfig()
  if (!file || !Object.hasOwn(file.tokens, registry)) return false
  const { [registry]: _, ...tokens } = file.tokens
  await writeConfig({ registry: file.registry, tokens })
  return true
}

async function readConfig(): Promise<ConfigFile | null> {
  const path = configPath()
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
  try {
    const { registry, tokens } = JSON.parse(text) as Partial<ConfigFile>
    if (typeof registry === 'string' && typeof tokens === 'object' && tokens !== null && Object.values(tokens).every((token) => typeof token === 'string')) return { registry, tokens }
  } catch {
    // falls through to the one message for everything unreadable
  }
  throw new CliError(EXIT.failure, 'bad_config', `${path} is not a configuration that portllm can read. Remove it and run \`portllm login\` again.`)
}

async function writeConfig(file: ConfigFile): Promise<void> {
  const path = configPath()
  await makeFolder(dirname(path), 0o700)
  // A new file under a name of its own: an existing one could have a wider mode.
  const temporary = `${path}.${randomUUID()}.tmp`
  await writeFile(temporary, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600, flag: 'wx' })
  await rename(temporary, path)
}
