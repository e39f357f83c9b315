import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ConfigError } from './config.ts'

export interface Listener {
  /** Without a trailing slash. */
  readonly url: string
  /** Takes no new connection, lets running requests end for `graceSeconds`, then cuts them off. Returns how many were. */
  close(graceSeconds: number): Promise<number>
}

/** Listens; port 0 takes any free one. `setting` is what chooses the port. Throws ConfigError. */
export function listen(http: Server, { host, port, setting }: { host: string; port: number; setting: string }): Promise<Listener> {
  return new Promise((resolve, reject) => {
    http.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? `another program listens there; choose another ${setting}` : error.message
      reject(new ConfigError(`Cannot listen on ${host} port ${port}: ${why}.`))
    })
    http.listen(port, host, () => resolve({ url: urlOf(http, host), close: closer(http) }))
  })
}

function urlOf(http: Server, host: string): string {
  const { port } = http.address() as AddressInfo
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '[::1]' : host.includes(':') ? `[${host}]` : host
  return `http://${reachable}:${port}`
}

function closer(http: Server): Listener['close'] {
  let running = 0
  http.prependListener('request', (_, response) => {
    running++
    response.once('close', () => {
      running--
      if (!http.listening) setImmediate(() => http.closeIdleConnections())
    })
    // Otherwise a client that keeps its connection busy would keep the server from ending.
    if (!http.listening) response.setHeader('Connection', 'close')
  })
  let closed: Promise<number> | undefined
  return (graceSeconds) => (closed ??= new Promise((resolve) => {
    let cutOff = 0
    const cut = setTimeout(() => {
      cutOff = running
      http.closeAllConnections()
    }, graceSeconds * 1000)
    http.close(() => {
      clearTimeout(cut)
      resolve(cutOff)
    })
    http.closeIdleConnections()
  }))
}
