import type { z } from 'zod'
import type { S3Settings } from './ports/s3-client.ts'
import { redactUrl } from './redaction.ts'
import { S3Environment } from './s3-environment.ts'
import { SETTINGS, type Setting, type SettingName } from './settings.ts'

/** What the server runs by: SETTINGS says what each of them means. */
export type ServerConfig = { readonly [K in SettingName]: z.output<(typeof SETTINGS)[K]['schema']> } & {
  /** What the settings of S3 say together. */
  readonly s3: S3Settings | undefined
}

/** The settings that options of the command line gave. */
export type ServerOptions = { readonly [K in SettingName]?: string | number | boolean | undefined }

type Environment = Readonly<Record<string, string | undefined>>

export class ConfigError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'ConfigError'
  }
}

const NAMES = Object.keys(SETTINGS) as SettingName[]

/** Options and environment, read once. Throws ConfigError that names each wrong setting. */
export function readConfig(options: ServerOptions, environment: Environment): ServerConfig {
  const config: Partial<Record<SettingName, unknown>> = {}
  const wrong: string[] = []
  for (const name of NAMES) {
    const { text } = given(name, options, environment)
    const parsed = (SETTINGS[name] as Setting).schema.safeParse(text)
    if (parsed.success) config[name] = parsed.data
    else wrong.push(`${nameGiven(name, options)} ${parsed.error.issues[0]!.message}.`)
  }
  const s3 = S3Environment.safeParse(environment)
  if (!s3.success) wrong.push(...s3.error.issues.map(({ path, message }) => `The environment variable ${path.join('.')} ${message}.`))
  if (wrong.length > 0) throw new ConfigError([...new Set(wrong)].join('\n'))
  return { ...config, s3: s3.data } as ServerConfig
}

/** A setting as it may be shown. */
export interface ShownSetting {
  readonly setting: SettingName
  readonly environment: string
  readonly value: unknown
  readonly from: 'option' | 'environment' | 'default'
}

/** The configuration in effect, with secrets redacted. */
export function showConfig(config: ServerConfig, options: ServerOptions, environment: Environment): ShownSetting[] {
  return NAMES.map((name) => {
    const { environment: variable, secret } = SETTINGS[name] as Setting
    const value = config[name]
    const shown = value === undefined ? null : secret === 'whole' ? '***' : secret === 'password' ? redactUrl(String(value)) : value
    return { setting: name, environment: variable, value: shown, from: given(name, options, environment).from }
  })
}

/** The secrets of a configuration, as texts that no log may hold. */
export function secretsOf(config: ServerConfig): string[] {
  return NAMES.flatMap((name) => {
    const { secret } = SETTINGS[name] as Setting
    const value = config[name]
    if (secret === undefined || value === undefined) return []
    return secret === 'whole' ? [String(value)] : passwordsOf(String(value))
  })
}

/** As it stands in the URL and as it is meant. */
function passwordsOf(text: string): string[] {
  const { password, searchParams } = new URL(text)
  return [password, decodeURIComponent(password), searchParams.get('password') ?? ''].filter((secret) => secret !== '')
}

function given(name: SettingName, options: ServerOptions, environment: Environment): { text: string | undefined; from: ShownSetting['from'] } {
  const option = options[name]
  if (option !== undefined) return { text: String(option), from: 'option' }
  const text = environment[SETTINGS[name].environment]
  return text === undefined || text === '' ? { text: undefined, from: 'default' } : { text, from: 'environment' }
}

/** Options are named with their value, which is on the command line anyhow; what comes from the environment may be secret. */
function nameGiven(name: SettingName, options: ServerOptions): string {
  const { option, environment } = SETTINGS[name] as Setting
  return options[name] === undefined ? `The environment variable ${environment}` : `${option!.split(' ')[0]} ${String(options[name])}`
}
