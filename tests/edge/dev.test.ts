import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { expect, it } from 'vitest'
import { ROOT } from '../setup/registry.ts'
import { freePort } from '../setup/free-port.ts'

it('one command starts the Worker with all that it needs; Ctrl-C ends all of it', async () => {
  const child = spawn('node', [`${ROOT}tests/edge/dev.ts`, '--json', '--no-runners', '--port', String(await freePort())], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  const [line] = (await Promise.race([once(createInterface({ input: child.stdout }), 'line'), exited.then(([code]) => { throw new Error(`it ended with exit code ${code}`) })])) as [string]
  const { url, bootstrapToken } = JSON.parse(line) as { url: string; bootstrapToken: string }
  const whoami = await fetch(`${url}/v1/whoami`, { headers: { Authorization: `Bearer ${bootstrapToken}` } })
  expect([whoami.status, ((await whoami.json()) as { user: { name: string } }).user.name]).toEqual([200, 'admin'])
  expect(await (await fetch(`${url}/v1/health`)).json()).toMatchObject({ deployment: 'edge' })
  child.kill('SIGINT')
  expect(await exited).toEqual([0, null])
  await expect(fetch(`${url}/v1/health`)).rejects.toThrow('fetch failed')
})
