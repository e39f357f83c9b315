import type { ChildProcess } from 'node:child_process'
import { open, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { EXIT } from '../../cli/exit.ts'
import { copyFixture, digests, eventually, startCommandLine, type CommandLine, type Ended } from './command-line.ts'
import type { Fate, Passing } from './faulty-proxy.ts'

let cli: CommandLine
let llama: string
let expected: Record<string, string>

beforeAll(async () => {
  cli = await startCommandLine()
  llama = await copyFixture(cli, 'llama')
  await cli.ok('org', 'create', 'lab')
  await cli.ok('publish', join(llama, 'base'), '--name', 'lab/tiny', '--version', '1.0')
  await cli.ok('publish', join(llama, 'patch-kind'), '--name', 'lab/kind', '--version', '1.0.0', '--base', 'lab/tiny@1.0')
  await cli.ok('merge', join(llama, 'base'), join(llama, 'patch-kind'), '--output', join(cli.folder, 'expected'))
  expected = await digests(join(cli.folder, 'expected'))
})
afterAll(() => cli.close())
afterEach(() => cli.proxy.reset())

const GET_MERGED = ['get', 'lab/tiny@1.0', '--patch', 'lab/kind', '--concurrency', '1', '--output']

/** Of bytes that are stored, or that the registry computes when they are fetched. */
const TRANSFER = /^\/(blobs|v1\/derivations\/[0-9a-f]{64}\/files)\//

function isTransfer(method: 'GET' | 'PUT') {
  return (passing: Passing) => passing.method === method && TRANSFER.test(passing.path) && passing.userAgent.startsWith('portllm/')
}

/** Lets `count` transfers of the command line pass; the others meet `fate`. */
function after(count: number, method: 'GET' | 'PUT', fate: Fate): () => number {
  let seen = 0
  cli.proxy.decide = (passing) => (isTransfer(method)(passing) && ++seen > count ? fate : 'pass')
  return () => seen
}

/** Runs until one transfer more than `count` is under way, then sends the signal. */
async function interrupt(args: readonly string[], count: number, method: 'GET' | 'PUT', signal: NodeJS.Signals): Promise<Ended> {
  const seen = after(count, method, 'stall')
  let child: ChildProcess | undefined
  const ended = cli.run(args, { onStart: (started) => (child = started) })
  await eventually(() => seen() > count)
  child!.kill(signal)
  return ended
}

test.each([
  // Three files the first time; after that the registry holds the weights.
  { signal: 'SIGKILL', files: 3 },
  { signal: 'SIGINT', files: 2, code: 130 },
  { signal: 'SIGTERM', files: 2, code: 143 },
] as const)('publish goes on where $signal stopped it', async ({ signal, files, ...ended }) => {
  const [name, folder] = [`lab/${signal.toLowerCase()}`, join(llama, 'patch-speech')]
  await writeFile(join(folder, 'README.md'), `interrupted by ${signal}`)
  const config = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8'))
  await writeFile(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, base_model_name_or_path: signal }))
  const args = ['publish', folder, '--name', name, '--version', '1.0.0', '--base', 'lab/tiny@1.0', '--concurrency', '1']
  expect(await interrupt(args, 1, 'PUT', signal)).toMatchObject('code' in ended ? { code: ended.code, stderr: expect.stringContaining('again') } : { signal })
  expect((await cli.run(['resolve', name, '--target', 'lab/tiny@1.0'])).code).toBe(4)

  cli.proxy.reset()
  expect(await cli.ok(...args)).toMatchObject({ reference: `${name}@1.0.0` })
  expect(cli.proxy.requests.filter(isTransfer('PUT')).length).toBe(files - 1)
  expect((await cli.ok('resolve', name, '--target', 'lab/tiny@1.0')).verdict).toBe('identical')
})

test.each(['SIGKILL', 'SIGINT'] as const)('get goes on where %s stopped it, and fetches nothing twice', async (signal) => {
  const output = join(cli.folder, `get-${signal}`)
  const ended = await interrupt([...GET_MERGED, output], 7, 'GET', signal)
  if (signal === 'SIGINT') expect(ended).toMatchObject({ code: 130, stderr: expect.stringContaining('again') })
  await expect(stat(output)).rejects.toThrow('ENOENT')
  expect(await readdir(`${output}.partial`)).toContain('.portllm-get')

  cli.proxy.reset()
  const again = await cli.ok(...GET_MERGED, output)
  const fetched = cli.proxy.requests.filter(isTransfer('GET')).length
  const all = await countExtents()
  expect(fetched).toBe(all - 7)
  expect(again.fetchedBytes).toBeLessThan(again.bytes)
  expect(await digests(output)).toEqual(expected)
  await expect(stat(`${output}.partial`)).rejects.toThrow('ENOENT')
})

async function countExtents(): Promise<number> {
  const { derivation } = await cli.ok('resolve', 'lab/kind', '--target', 'lab/tiny@1.0')
  const plan = await cli.registry.ok('getDerivationPlan', { params: { id: derivation } })
  return plan.files.flatMap((file: { extents: unknown[] }) => file.extents).length
}

test('a byte that went bad in the partial file is found and fetched again', async () => {
  const output = join(cli.folder, 'flipped')
  await interrupt([...GET_MERGED, output], 20, 'GET', 'SIGKILL')
  const journal = (await readFile(join(`${output}.partial`, '.portllm-get'), 'utf8')).split('\n')
  const [, , end, path] = journal.map((line) => /^\+(\d+) (\d+) (.*\.safetensors)$/.exec(line)).find((match) => match !== null)!
  const file = await open(join(`${output}.partial`, path!), 'r+')
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, Number(end) - 1)
  byte[0] = byte[0]! ^ 1
  await file.write(byte, 0, 1, Number(end) - 1)
  await file.close()

  cli.proxy.reset()
  const again = await cli.run([...GET_MERGED, output, '--json'])
  expect(again.code).toBe(0)
  expect(again.json.repaired).toBe(1)
  expect(again.stderr).toContain(`${path} (bytes`)
  expect(await digests(output)).toEqual(expected)
})

test('bytes that are wrong at their source are never given a name', async () => {
  const output = join(cli.folder, 'wrong')
  cli.proxy.decide = (passing) => (isTransfer('GET')(passing) ? 'flip-first-byte' : 'pass')
  const refused = await cli.run([...GET_MERGED, output, '--json'])
  expect(refused.code).toBe(8)
  expect(refused.json.error.code).toBe('damaged')
  await expect(stat(output)).rejects.toThrow('ENOENT')
  cli.proxy.reset()
  await cli.ok(...GET_MERGED, output)
  expect(await digests(output)).toEqual(expected)
})

test('what is left of another download is not mixed in', async () => {
  const output = join(cli.folder, 'mixed')
  await interrupt(['get', 'lab/tiny@1.0', '--concurrency', '1', '--output', output], 2, 'GET', 'SIGKILL')
  cli.proxy.reset()
  const again = await cli.run([...GET_MERGED, output, '--json'])
  expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining('discarded') })
  expect(await digests(output)).toEqual(expected)
})

test('two downloads into one folder do not meet', async () => {
  const output = join(cli.folder, 'twice')
  const seen = after(3, 'GET', 'stall')
  let child: ChildProcess | undefined
  const first = cli.run([...GET_MERGED, output], { onStart: (started) => (child = started) })
  await eventually(() => seen() > 3)
  const second = await cli.run([...GET_MERGED, output])
  expect(second).toMatchObject({ code: 5, stderr: expect.stringContaining(String(child!.pid)) })
  child!.kill('SIGKILL')
  await first
})

test('connections that break and stores that are busy are tried again', async () => {
  const output = join(cli.folder, 'broken')
  let count = 0
  cli.proxy.decide = (passing) => {
    if (!isTransfer('GET')(passing)) return 'pass'
    count++
    return count % 9 === 2 ? 'break' : count % 9 === 4 ? 503 : count % 9 === 6 ? 403 : 'pass'
  }
  const got = await cli.ok(...GET_MERGED, output)
  expect(got.repaired).toBe(0)
  expect(count).toBeGreaterThan(20)
  expect(await digests(output)).toEqual(expected)
})

test('without an event stream, jobs are asked for again and again', async () => {
  cli.proxy.decide = ({ path }) => (path.endsWith('/events') ? 404 : 'pass')
  await writeFile(join(llama, 'patch-kind', 'README.md'), 'no events here')
  const published = await cli.ok('publish', join(llama, 'patch-kind'), '--name', 'lab/polled', '--version', '1.0.0', '--base', 'lab/tiny@1.0')
  expect(published.reference).toBe('lab/polled@1.0.0')
  expect(cli.proxy.requests.some(({ path }) => path.endsWith('/events'))).toBe(true)
})

test('a signal that comes twice at once, as through portllm.js, still says how to go on', async () => {
  let child: ChildProcess | undefined
  cli.proxy.decide = () => {
    // Two of one kind might arrive as one; of two kinds the kernel may deliver either first.
    child!.kill('SIGINT')
    child!.kill('SIGTERM')
    return 'stall'
  }
  const stopped = await cli.run(['whoami'], { onStart: (started) => (child = started) })
  expect(stopped.stderr).toContain('Run the same command again')
  expect([EXIT.interrupted, EXIT.terminated]).toContain(stopped.code)
})
