import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import { ROOT } from '../setup/registry.ts'

/** As far as the tests look at it. */
export interface Service {
  image: string
  user: string
  restart: string
  read_only?: boolean
  privileged?: boolean
  cap_add?: string[]
  cap_drop?: string[]
  security_opt?: string[]
  command?: string[]
  environment?: Record<string, string>
  tmpfs?: string[]
  volumes?: string[]
  ports?: string[]
  networks?: string[]
  network_mode?: string
  profiles?: string[]
  depends_on?: Record<string, { condition: string }>
  healthcheck?: { test: string[] }
  deploy?: { resources: { limits: { cpus: string; memory: string } } }
}
export interface Compose {
  services: Record<string, Service>
  networks: Record<string, unknown>
  volumes: Record<string, unknown>
}

/** infra/compose.yaml with its anchors merged, before variables are put in. */
export async function readCompose(): Promise<Compose> {
  return parse(await readFile(join(ROOT, 'infra/compose.yaml'), 'utf8'), { merge: true }) as Compose
}

/** `${NAME:-default}` and `${NAME:?message}`, as Compose does it; throws with the message. */
export function interpolate(text: string, words: Readonly<Record<string, string>>): string {
  return text.replace(/\$\{(\w+)(?::([-?])([^}]*))?\}/g, (_whole, name: string, kind: string | undefined, rest: string | undefined) => {
    const word = words[name]
    if (word !== undefined && word !== '') return word
    if (kind === '?') throw new Error(`${name}: ${rest}`)
    return rest ?? ''
  })
}
