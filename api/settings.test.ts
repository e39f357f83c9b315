import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { ConfigError, readConfig, secretsOf, showConfig } from './config.ts'
import { SETTINGS, type Setting } from './settings.ts'

const settings: readonly Setting[] = Object.values(SETTINGS)

describe('settings', () => {
  it('are those of docs/operations.md, word for word', async () => {
    const rows = settings.map(({ environment, option, meaning, otherwise }) => `| \`${environment}\`${option === undefined ? '' : `, \`${option.split(' ')[0]}\``} | ${meaning} | ${otherwise} |`)
    const table = ['| setting | meaning | without it |', '|---|---|---|', ...rows, ''].join('\n')
    expect(await readFile(new URL('../docs/operations.md', import.meta.url), 'utf8')).toContain(table)
  })

  it('have defaults, and an option wins over the environment', () => {
    expect(readConfig({}, {})).toMatchObject({ host: '127.0.0.1', port: 8080, databaseUrl: undefined, startRunners: true, migrate: 'auto', graceSeconds: 25, logLevel: 'info' })
    const environment = { PORTLLM_PORT: '1000', PORTLLM_HOST: '', PORTLLM_RUNNERS: 'false', PORTLLM_PUBLIC_URL: 'https://models.example//' }
    expect(readConfig({ port: 2000 }, environment)).toMatchObject({ host: '127.0.0.1', port: 2000, startRunners: false, publicUrl: 'https://models.example' })
    expect(showConfig(readConfig({ port: 2000 }, environment), { port: 2000 }, environment).filter(({ from }) => from !== 'default').map(({ environment: name, value, from }) => [name, value, from])).toEqual([
      ['PORTLLM_PORT', 2000, 'option'], ['PORTLLM_PUBLIC_URL', 'https://models.example', 'environment'], ['PORTLLM_RUNNERS', false, 'environment'],
    ])
  })

  it('that are wrong are all named at once, and never with what may be secret', () => {
    const wrong = () => readConfig({ port: '70000' }, { DATABASE_URL: 'mysql://user:secret@host/db', PORTLLM_GRACE_SECONDS: '1.5', PORTLLM_MIGRATE: 'sometimes', PORTLLM_S3_SECRET_ACCESS_KEY: 'secret' })
    expect(wrong).toThrow(ConfigError)
    const message = (() => { try { wrong() } catch (error) { return (error as Error).message } })()
    expect(message).toBe([
      '--port 70000 is not a port: give a number from 0 (any free one) to 65535.',
      'The environment variable DATABASE_URL must be a postgres:// or postgresql:// URL.',
      'The environment variable PORTLLM_MIGRATE must be one of auto, never, expanded.',
      'The environment variable PORTLLM_GRACE_SECONDS must be a whole number from 0 to 86400.',
      'The environment variable PORTLLM_S3_BUCKET is missing: PORTLLM_S3_SECRET_ACCESS_KEY is set, but no bucket to use.',
    ].join('\n'))
  })

  it('that are secret are shown without it', () => {
    const environment = { DATABASE_URL: 'postgres://user:p%40ss@host/db?password=other&sslmode=require', PORTLLM_S3_BUCKET: 'bucket', PORTLLM_S3_REGION: 'eu', PORTLLM_S3_ACCESS_KEY_ID: 'id', PORTLLM_S3_SECRET_ACCESS_KEY: 'key of S3' }
    const config = readConfig({}, environment)
    const shown = new Map(showConfig(config, {}, environment).map(({ environment: name, value }) => [name, value]))
    expect(shown.get('DATABASE_URL')).toBe('postgres://user:***@host/db?password=***&sslmode=require')
    expect(shown.get('PORTLLM_S3_SECRET_ACCESS_KEY')).toBe('***')
    expect(secretsOf(config)).toEqual(['p%40ss', 'p@ss', 'other', 'key of S3'])
  })
})
