import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { digests, startCommandLine, type CommandLine } from '../cli/command-line.ts'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { ROOT } from '../setup/registry.ts'
import { compareVariant, makeVariants } from './variants.ts'

const folder = await mkdtemp(join(tmpdir(), 'portllm-untied-'))
const variants = await makeVariants(folder, ['untied-sharded', 'untied-embeddings'])
const [variant, onEmbedding] = ['untied-sharded', 'untied-embeddings'].map((wanted) => variants.find(({ name, dtype }) => name === wanted && dtype === 'bf16'))
const [base, evolved] = (['base', 'evolved'] as const).map((which) => variant!.merges.find(({ on }) => on === which)!)
const local = join(folder, 'local')
const MERGED = ['lab/tied@2.0', '--patch', 'lab/head']

let cli: CommandLine
beforeAll(async () => {
  cli = await startCommandLine()
})
afterAll(async () => {
  await cli.close()
  await rm(folder, { recursive: true, force: true })
})

async function load(model: string): Promise<any> {
  const { stdout } = await promisify(execFile)(await pythonPath(), [join(ROOT, 'tests/python/oracle.py'), 'load', '--model', model])
  return JSON.parse(stdout)
}

test('`portllm merge --tied untie`: transformers loads the new head beside the embedding, each with the numbers of its file', async () => {
  expect(await compareVariant(variant!, evolved!, local)).toMatchObject({ unexplained: 0 })
  const loading = { missing_keys: [], unexpected_keys: [], mismatched_keys: [] }
  const before = await load(evolved!.model)
  expect(before).toMatchObject({ loading, tie_word_embeddings: true, shares_head: true })
  expect(await load(local)).toEqual({ loading, tie_word_embeddings: false, shares_head: false, tensors: before.tensors + 1, differing: [] })
})

test('a registry refuses the patch unless `untie` is asked for, then gives the bytes of the local merge, computed and materialised', async () => {
  await cli.ok('org', 'create', 'lab')
  await cli.ok('publish', base!.model, '--name', 'lab/tied', '--version', '1.0')
  await cli.ok('publish', evolved!.model, '--name', 'lab/tied', '--version', '2.0', '--parent', 'lab/tied@1.0')
  await cli.ok('publish', variant!.adapters[0]![0], '--name', 'lab/head', '--version', '1.0.0', '--base', 'lab/tied@1.0')

  for (const target of ['lab/tied@1.0', 'lab/tied@2.0']) {
    const refused = await cli.run(['resolve', 'lab/head', '--target', target, '--json'])
    expect(refused).toMatchObject({ code: 3, json: { verdict: 'incompatible', derivation: null } })
    expect(refused.json.patches[0].reasons).toContainEqual(expect.objectContaining({ code: 'tied-weights', remedy: expect.stringContaining('`untie`') }))
  }
  expect((await cli.run(['get', ...MERGED, '--output', join(cli.folder, 'none')])).code).toBe(3)
  const { derivation, merged } = await cli.ok('resolve', 'lab/head', '--target', 'lab/tied@2.0', '--tied', 'untie')
  expect(merged).toBe('absent')

  const computed = join(cli.folder, 'computed')
  expect(await cli.ok('get', ...MERGED, '--tied', 'untie', '--output', computed)).toMatchObject({ derivation, storage: 'computed' })
  expect(await digests(computed)).toEqual(await digests(local))
  const view = await cli.ok('info', derivation)
  expect(view.options).toEqual({ tied: 'untie' })
  const untouched = view.files.filter(({ changed }: { changed: boolean }) => !changed).map(({ path }: { path: string }) => path)
  expect(untouched).toEqual(['generation_config.json'])

  expect(await cli.ok('storage', derivation, 'materialised')).toMatchObject({ storage: 'materialised' })
  const kept = join(cli.folder, 'kept')
  await cli.ok('get', '--lock', join(computed, 'portllm.lock'), '--output', kept)
  expect(await digests(kept)).toEqual(await digests(local))
})

test('a patch of the embedding alone leaves the new head with the old numbers', async () => {
  const [adapter] = onEmbedding!.adapters[0]!
  await cli.ok('publish', adapter, '--name', 'lab/embedding', '--version', '1.0.0', '--base', 'lab/tied@1.0')
  const output = join(cli.folder, 'embedding')
  const { derivation } = await cli.ok('get', 'lab/tied@2.0', '--patch', 'lab/embedding', '--tied', 'untie', '--output', output)
  const own = join(folder, 'own')
  await cli.ok('merge', evolved!.model, adapter, '--tied', 'untie', '--output', own)
  expect(await digests(output)).toEqual(await digests(own))
  const manifest: any = await (await fetch(`${cli.registry.url}/v1/derivations/${derivation}/manifest`)).json()
  const before: any = await (await fetch(`${cli.registry.url}/v1/models/lab/tied/2.0/manifest`)).json()
  const digestOf = ({ tensors }: any, wanted: string) => tensors.find(({ name }: any) => name === wanted).digest
  expect(digestOf(manifest, 'lm_head.weight')).toBe(digestOf(before, 'model.embed_tokens.weight'))
  expect(digestOf(manifest, 'model.embed_tokens.weight')).not.toBe(digestOf(before, 'model.embed_tokens.weight'))
  await cli.ok('storage', derivation, 'materialised')
  await cli.ok('verify', '--derivation', derivation)
})

test('the head is in the receipt, and computed again to its digest', async () => {
  const { receipt, checked, tensors } = await cli.ok('verify', ...MERGED, '--tied', 'untie')
  expect(receipt.recipe.options).toEqual({ tied: 'untie' })
  expect(receipt.tensors.at(-1).name).toBe('lm_head.weight')
  expect(checked).toBe(5)
  for (const { expected, found } of tensors) expect(found).toBe(expected)
})
