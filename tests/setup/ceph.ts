import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { installDebianPackages } from './debian-packages.ts'
import { freePort } from './free-port.ts'
import { startGuard } from './process-guard.ts'

const TOOLS = ['ceph', 'ceph-mon', 'ceph-osd', 'monmaptool', 'radosgw', 'radosgw-admin']
const PACKAGES = ['ceph-common', 'ceph-mon', 'ceph-osd', 'radosgw']
const READY_MS = 60_000

export interface TestCeph {
  readonly endpoint: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
  stop(): Promise<void>
}

/**
 * A real S3: Ceph's RADOS gateway before one monitor and one store in memory, without authentication between them, on
 * free loopback ports. It ends with this process, however that ends.
 */
export async function startCeph(): Promise<TestCeph> {
  findTools()
  const folder = await mkdtemp(join(tmpdir(), 'portllm-ceph-'))
  const guard = startGuard(folder)
  const keys = { accessKeyId: randomBytes(10).toString('hex').toUpperCase(), secretAccessKey: randomBytes(20).toString('hex') }
  const [v2, v1, http] = [await freePort(), await freePort(), await freePort()]
  const configuration = join(folder, 'ceph.conf')
  const fsid = randomUUID()
  await writeFile(configuration, configure({ folder, fsid, v1, v2, http }))
  const run = async (command: string, ...args: string[]) => (await promisify(execFile)(command, ['-c', configuration, ...args])).stdout
  let log = ''
  const begin = (command: string, ...args: string[]): ChildProcess => {
    const child = spawn(command, ['-c', configuration, '-f', ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    guard.watch(child)
    child.stderr.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4000)))
    return child
  }
  try {
    for (const name of ['mon', 'osd', 'rgw']) await mkdir(join(folder, name))
    const map = join(folder, 'monmap')
    await promisify(execFile)('monmaptool', ['--create', '--addv', 'a', `[v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]`, '--fsid', fsid, map])
    await run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map)
    begin('ceph-mon', '-i', 'a')
    const osd = randomUUID()
    await run('ceph', 'osd', 'new', osd)
    await run('ceph-osd', '--mkfs', '-i', '0', '--osd-uuid', osd)
    begin('ceph-osd', '-i', '0')
    await run('radosgw-admin', 'user', 'create', '--uid', 'portllm', '--display-name', 'PortLLM', '--access-key', keys.accessKeyId, '--secret-key', keys.secretAccessKey)
    const gateway = begin('radosgw', '-n', 'client.rgw')
    const endpoint = `http://127.0.0.1:${http}`
    await ready(endpoint, gateway)
    return { endpoint, ...keys, stop: guard.end }
  } catch (error) {
    await guard.end()
    throw new Error(`Ceph did not start: ${(error as Error).message}\n${log}`, { cause: error })
  }
}

function findTools(): void {
  const missing = () => TOOLS.filter((tool) => spawnSync(tool, ['--version']).error !== undefined)
  if (missing().length > 0) installDebianPackages(...PACKAGES)
  if (missing().length > 0) throw new Error(`These tests need ${missing().join(', ')} of Ceph. Install it: apt-get install ${PACKAGES.join(' ')}; or name another S3: PORTLLM_TEST_S3_ENDPOINT (docs/operations.md).`)
}

function configure({ folder, fsid, v1, v2, http }: { folder: string; fsid: string; v1: number; v2: number; http: number }): string {
  const settings = {
    fsid,
    'mon host': `[v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]`,
    'public addr': '127.0.0.1',
    'cluster addr': '127.0.0.1',
    'auth cluster required': 'none',
    'auth service required': 'none',
    'auth client required': 'none',
    // The gateway asks for encryption, which needs authentication.
    'ms mon client mode': 'crc',
    'paxos propose interval': 0.05,
    'run dir': folder,
    'admin socket': join(folder, '$name.$pid.asok'),
    'log to file': false,
    'log to stderr': false,
    'err to stderr': true,
    'mon cluster log to file': false,
    'mon data': join(folder, 'mon'),
    'mon data avail crit': 0,
    'mon allow pool size one': true,
    'osd data': join(folder, 'osd'),
    'osd objectstore': 'memstore',
    'memstore device bytes': 16 * 2 ** 30,
    'osd crush chooseleaf type': 0,
    'osd pool default size': 1,
    'osd pool default min size': 1,
    'osd pool default pg num': 8,
    'osd pool default pg autoscale mode': 'off',
    'rgw data': join(folder, 'rgw'),
    'rgw frontends': `beast endpoint=127.0.0.1:${http}`,
    // What tests have deleted is memory.
    'rgw gc obj min wait': 1,
    'rgw gc processor period': 5,
    'rgw gc processor max time': 5,
  }
  return `[global]\n${Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`).join('')}`
}

async function ready(endpoint: string, gateway: ChildProcess): Promise<void> {
  const deadline = Date.now() + READY_MS
  while (Date.now() < deadline && gateway.exitCode === null && gateway.signalCode === null) {
    if (await fetch(endpoint).then((response) => response.ok, () => false)) return
    await sleep(100)
  }
  throw new Error(gateway.exitCode === null ? `its gateway did not answer within ${READY_MS / 1000} s` : `its gateway ended with ${gateway.exitCode}`)
}
