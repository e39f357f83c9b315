import type { Command } from 'commander'
import { readConfig, type ServerOptions } from '../config.ts'
import { endOnSignal } from '../end-on-signal.ts'
import type { RunningServer } from '../start-server.ts'

interface ServeOptions { data?: string; host?: string; port?: string; runners: boolean; json?: true; checkConfig?: true; newAdminToken?: true }

/** What `portllm-server` does without a command: it serves. */
export function addServe(program: Command): void {
  program
    .option('--data <folder>', 'folder of the embedded database, blobs and lock (default: ./portllm-data)')
    .option('--host <address>', 'address to listen on (default: 127.0.0.1)')
    .option('--port <number>', 'port to listen on; 0 takes any free one (default: 8080)')
    .option('--no-runners', 'start no runner: others claim the jobs')
    .option('--json', 'answer with one line of JSON')
    .option('--check-config', 'start nothing: show the configuration in effect, and check that what it names can be reached')
    .option('--new-admin-token', "start nothing: make a token in place of the administrator's, which is lost")
    .action(serve)
}

async function serve({ runners, json, checkConfig: isCheck, newAdminToken: isToken, data, host, port }: ServeOptions): Promise<void> {
  // Only what was given: the default of --no-runners is the environment's.
  const options: ServerOptions = { data, host, port, ...(!runners && { startRunners: false }) }
  // Each loads only what it needs: the server itself is most of the program.
  if (isCheck) return (await import('./check-config.ts')).checkConfig(options, process.env, json === true)
  const config = readConfig(options, process.env)
  if (isToken) return showAdminToken(await (await import('../new-admin-token.ts')).newAdminToken(config), json === true)
  const [{ openServerLog }, { startServer }] = await Promise.all([import('../observability/server-log.ts'), import('../start-server.ts')])
  const log = await openServerLog(config)
  const starting = startServer(config, {
    log,
    onFatal: (err) => {
      log.fatal({ err }, 'The server cannot go on')
      process.exit(1)
    },
  })
  endOnSignal(starting, log)
  showReady(await starting, config.data, json === true)
}

function showReady({ url, bootstrapToken }: RunningServer, data: string, json: boolean): void {
  if (json) return console.log(JSON.stringify({ url, bootstrapToken, data }))
  console.log(`PortLLM is at ${url} (API: ${url}/docs), its data in ${data}`)
  if (bootstrapToken === null) return
  console.log(`\nFirst start: this is the administrator's token. It is shown this once and stored nowhere.\n\n  ${bootstrapToken}\n`)
  console.log(`  portllm login ${url}\n`)
}

function showAdminToken(adminToken: string, json: boolean): void {
  console.log(json ? JSON.stringify({ adminToken }) : `The administrator's new token. It is shown this once and stored nowhere; the one that it replaces has ended.\n\n  ${adminToken}\n`)
}
