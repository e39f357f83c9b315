import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Hub {
  readonly url: string
  /** Files of the last commit by path: SHA-256 of their content. */
  readonly files: Map<string, string>
  readonly repositories: Map<string, { visibility?: string }>
  /** `method path authorization` of every request. */
  readonly requests: string[]
  close(): Promise<void>
}

/** A Hub as its own client speaks to it when it pushes: repositories, git-lfs objects in a storage of another origin, commits. */
export async function startHub(token: string): Promise<Hub> {
  const objects = new Map<string, Buffer>()
  const requests: string[] = []
  const files = new Map<string, string>()
  const repositories = new Map<string, { visibility?: string }>()

  const storage = await listen(async (request, response, body) => {
    requests.push(`${request.method} ${request.url} ${request.headers.authorization ?? '-'}`)
    const oid = request.url!.slice(1)
    if (sha256(body) !== oid) return void response.writeHead(400).end()
    objects.set(oid, body)
    response.end()
  })
  const hub = await listen(async (request, response, body) => {
    requests.push(`${request.method} ${request.url} ${request.headers.authorization ?? '-'}`)
    const json = (value: unknown, status = 200) => void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    if (request.headers.authorization !== `Bearer ${token}`) return json({ error: 'Invalid credentials in Authorization header' }, 401)
    if (request.url === '/api/repos/create') {
      const { organization, name, visibility } = JSON.parse(body.toString())
      const id = `${organization}/${name}`
      if (repositories.has(id)) return json({ error: 'You already created this model repo', url: `${hub.url}/${id}` }, 409)
      repositories.set(id, { visibility })
      return json({ url: `${hub.url}/${id}`, name: id, id })
    }
    if (request.url!.includes('/preupload/')) {
      const asked = JSON.parse(body.toString()).files as { path: string }[]
      return json({ files: asked.map(({ path }) => ({ path, uploadMode: path.endsWith('.safetensors') ? 'lfs' : 'regular', shouldIgnore: false })) })
    }
    if (request.url!.endsWith('/info/lfs/objects/batch')) {
      const asked = JSON.parse(body.toString()).objects as { oid: string; size: number }[]
      return json({ transfer: 'basic', objects: asked.map(({ oid, size }) => ({ oid, size, actions: { upload: { href: `${storage.url}/${oid}` } } })) })
    }
    if (request.url!.includes('/commit/')) {
      files.clear()
      for (const line of body.toString().trim().split('\n').map((text) => JSON.parse(text))) {
        if (line.key === 'file') files.set(line.value.path, sha256(Buffer.from(line.value.content, 'base64')))
        if (line.key === 'lfsFile') files.set(line.value.path, objects.has(line.value.oid) ? line.value.oid : 'never uploaded')
      }
      return json({ success: true, commitOid: '0'.repeat(40), commitUrl: `${hub.url}/commit/${'0'.repeat(40)}`, hookOutput: '' })
    }
    json({ error: 'not found' }, 404)
  })
  return { url: hub.url, files, repositories, requests, close: async () => void (await Promise.all([hub.close(), storage.close()])) }
}

async function listen(handle: (request: IncomingMessage, response: ServerResponse, body: Buffer) => Promise<void>) {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    await handle(request, response, Buffer.concat(chunks))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => new Promise<void>((resolve) => void server.close(() => resolve())) }
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
