import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { copyFixture, startCommandLine, type CommandLine } from './command-line.ts'

const MERGED = ['lab/tiny@2.0', '--patch', 'lab/kind', '--patch', 'lab/speech:-0.5']

let cli: CommandLine
let derivation: string

beforeAll(async () => {
  cli = await startCommandLine()
  const llama = await copyFixture(cli, 'llama')
  await cli.ok('org', 'create', 'lab')
  await cli.ok('publish', join(llama, 'base'), '--name', 'lab/tiny', '--version', '1.0')
  await cli.ok('publish', join(llama, 'evolved'), '--name', 'lab/tiny', '--version', '2.0', '--parent', 'lab/tiny@1.0')
  for (const name of ['kind', 'speech']) await cli.ok('publish', join(llama, `patch-${name}`), '--name', `lab/${name}`, '--version', '1.0.0', '--base', 'lab/tiny@1.0')
  derivation = (await cli.ok('get', ...MERGED, '--output', join(cli.folder, 'merged'))).derivation
})
afterAll(() => cli.close())

test('every changed tensor is computed again to the digest of the receipt, whatever the path of the core', async () => {
  const { receipt, checked, tensors } = await cli.ok('verify', ...MERGED)
  expect(receipt).toMatchObject({ format: 'portllm.receipt/1', derivation, recipe: { rules: ['lora-f32/1'] } })
  expect(checked).toBe(receipt.tensors.length)
  for (const { expected, found } of tensors) expect(found).toBe(expected)
  // The fixtures' patches are large beside the rounding of their dtype.
  expect(receipt.totals.realisedDelta).toBeCloseTo(1, 4)
  expect(receipt.totals.roundingLoss).toBeGreaterThan(0)
  expect(receipt.totals.roundingLoss).toBeLessThan(0.01)
  const scalar = await cli.run(['verify', ...MERGED, '--json'], { env: { PORTLLM_CORE_PATH: 'scalar' } })
  expect(scalar).toMatchObject({ code: 0, json: { tensors } })
})

test('a sample is chosen by its seed', async () => {
  const [first, again] = [await cli.ok('verify', ...MERGED, '--sample', '3', '--seed', '7'), await cli.ok('verify', '--derivation', derivation, '--sample', '3', '--seed', '7')]
  expect(first).toMatchObject({ checked: 3, seed: 7 })
  expect(again.tensors).toEqual(first.tensors)
})

test('a receipt that says something else is found out, tensor by tensor', async () => {
  const { db } = cli.registry.server.dependencies
  const [row] = (await db.execute(sql`select receipt from derivations where id = ${derivation}`) as unknown as { rows: { receipt: { tensors: { name: string; digest: string }[] } }[] }).rows
  const { receipt } = row!
  const changed = { ...receipt, tensors: receipt.tensors.map((tensor, index) => (index === 1 ? { ...tensor, digest: `sha256:${'0'.repeat(64)}` } : tensor)) }
  const store = (value: unknown) => db.execute(sql`update derivations set receipt = ${JSON.stringify(value)}::jsonb where id = ${derivation}`)
  await store(changed)
  const refused = await cli.run(['verify', ...MERGED])
  expect(refused.code).toBe(8)
  expect(refused.stdout).toContain(receipt.tensors[1]!.name)
  await store({ ...receipt, tensors: receipt.tensors.slice(1) })
  const short = await cli.run(['verify', ...MERGED])
  expect(short.code).toBe(8)
  expect(short.stderr).toContain(`leaves out ${receipt.tensors[0]!.name}`)
  await store(receipt)
  await cli.ok('verify', ...MERGED)
})

test('what is not a merged model is told', async () => {
  expect((await cli.run(['verify', 'lab/tiny@2.0'])).code).toBe(2)
  expect((await cli.run(['verify', '--derivation', '0'.repeat(64)])).code).toBe(4)
})
