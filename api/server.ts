import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { tameAllocator } from '../gpu-runner/allocator.ts'

// Loading the packages makes much garbage; by default V8 lets it grow to 300 MB before it looks.
setFlagsFromString('--semi-space-growth-factor=1')
tameAllocator()
const { ConfigError, readConfig } = await import('./config.ts')
const { newAdminToken } = await import('./new-admin-token.ts')
const { startServer } = await import('./start-server.ts')

const USAGE = `Usage: node api/server.ts [--data DIR] [--port N] [--host ADDRESS] [--no-runners] [--json]
       node api/server.ts --new-admin-token [--data DIR] [--json]

  --data DIR       folder of database, blobs and lock (default: ./portllm-data)
  --port N         port to listen on; 0 takes any free one (default: 8080)
  --host ADDRESS   address to listen on (default: 127.0.0.1)
  --no-runners     start no runner: something else claims the jobs
  --json           print one line of JSON when ready
  --new-admin-token
                   start nothing: make a token in place of the administrator's, which is lost

Environment: DATABASE_URL (a PostgreSQL server instead of the embedded database), PORTLLM_PUBLIC_URL.`

function readArguments(): { help: boolean; json: boolean; newAdminToken: boolean; data?: string; port?: string; host?: string; startRunners: boolean } {
  try {
    const { values } = parseArgs({
      options: {
        data: { type: 'string' },
        port: { type: 'string' },
        host: { type: 'string' },
        'no-runners': { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        'new-admin-token': { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    return { ...values, startRunners: !values['no-runners'], newAdminToken: values['new-admin-token'] }
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}\n\n${USAGE}`)
  }
}

function showAdminToken(adminToken: string, json: boolean): void {
  console.log(json ? JSON.stringify({ adminToken }) : `The administrator's new token. It is shown this once and stored nowhere; the one that it replaces has ended.\n\n  ${adminToken}\n`)
}

async function main(): Promise<void> {
  const options = readArguments()
  if (options.help) return void console.log(USAGE)
  const config = readConfig(options, process.env)
  if (options.newAdminToken) return showAdminToken(await newAdminToken(config), options.json)
  const server = await startServer(config, {
    onFatal: (error) => {
      console.error(error.message)
      process.exit(1)
    },
  })
  if (options.json) {
    console.log(JSON.stringify({ url: server.url, bootstrapToken: server.bootstrapToken, data: config.data }))
  } else {
    console.log(`PortLLM is at ${server.url} (API: ${server.url}/docs), its data in ${config.data}`)
    if (server.bootstrapToken !== null) {
      console.log(`\nFirst start: this is the administrator's token. It is shown this once and stored nowhere.\n\n  ${server.bootstrapToken}\n`)
      console.log(`  portllm login ${server.url}\n`)
    }
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // A second signal ends the process at once.
    process.once(signal, () => void server.close().then(() => process.exit(0), (error: Error) => {
      console.error(error)
      process.exit(1)
    }))
  }
}

main().catch((error: Error) => {
  console.error(error instanceof ConfigError ? error.message : error)
  process.exitCode = 1
})
