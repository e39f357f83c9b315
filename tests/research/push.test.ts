import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startHub, type Hub } from './hub.ts'
import { LLAMA, Research } from './research.ts'

/** Not in Hugging Face's form: a Hub of one's own may have tokens of its own. */
const TOKEN = 'secret-of-the-hub'

let research: Research
let hub: Hub

beforeAll(async () => {
  research = await Research.start()
  hub = await startHub(TOKEN)
})
afterAll(async () => {
  await hub?.close()
  await research?.close()
})

const merge = (output: string, ...more: string[]) => ['merge', '--base_model_name_or_path', `${LLAMA}/evolved`, '--peft_model_path', `${LLAMA}/patch-kind`, '--output_dir', research.path(output), ...more]

test("the seed's words merge and push: every file, large ones to the storage, the token to the Hub alone", async () => {
  const ended = await research.run([...merge('lab/kind-v2', '--push_to_hub', '--hub_endpoint', hub.url, '--private'), '--json'], { HF_TOKEN: TOKEN })
  expect(ended).toMatchObject({ code: 0 })
  expect(JSON.parse(ended.stdout)).toMatchObject({ pushed: `${hub.url}/commit/${'0'.repeat(40)}`, derivation: expect.stringMatching(/^[0-9a-f]{64}$/) })
  expect(hub.repositories).toEqual(new Map([['lab/kind-v2', { visibility: 'private' }]]))
  expect(Object.fromEntries(hub.files)).toEqual(await digests(research.path('lab/kind-v2')))
  expect(hub.files.size).toBeGreaterThan(5)
  expect(`${ended.stdout}${ended.stderr}`).not.toContain(TOKEN)
  const puts = hub.requests.filter((line) => line.startsWith('PUT '))
  expect(puts.length).toBeGreaterThan(0)
  expect(puts.every((line) => line.endsWith(' -'))).toBe(true)
  expect(hub.requests.filter((line) => line.includes('/api/')).every((line) => line.endsWith(`Bearer ${TOKEN}`))).toBe(true)
})

test('the merged model is that of the arguments; a repository that is there already takes the next commit', async () => {
  await research.ok('merge', `${LLAMA}/evolved`, `${LLAMA}/patch-kind`, '--output', research.path('plain'))
  expect(await digests(research.path('plain'))).toEqual(await digests(research.path('lab/kind-v2')))
  const before = hub.requests.length
  const ended = await research.run(merge('again', '--push_to_hub', 'lab/kind-v2'), { HF_TOKEN: TOKEN, HF_ENDPOINT: hub.url })
  expect(ended).toMatchObject({ code: 0, stdout: expect.stringContaining(`Pushed to ${hub.url}`) })
  expect(hub.requests.length).toBeGreaterThan(before)
})

test('what is missing is said before anything is merged; a push that fails leaves the merged model', async () => {
  const refusals = [
    [merge('out', '--push_to_hub', 'lab/x', '--hub_endpoint', hub.url), {}, 6, /needs a token .* HF_TOKEN/],
    [merge('out', '--push_to_hub', 'x', '--hub_endpoint', hub.url), { HF_TOKEN: TOKEN }, 2, /write organization\/name/],
    [merge('out', '--push_to_hub', 'lab/x', '--hub_endpoint', 'nowhere'), { HF_TOKEN: TOKEN }, 2, /not an http or https URL/],
    [['merge', `${LLAMA}/evolved`, '--output', 'out'], {}, 2, /then those of the patches/],
    [[...merge('out'), `${LLAMA}/base`], {}, 2, /named twice/],
    [['merge', `${LLAMA}/evolved`, `${LLAMA}/patch-kind`], {}, 2, /--output/],
  ] as const
  for (const [args, env, code, message] of refusals) {
    const ended = await research.run(args, env)
    expect([args, ended.code]).toEqual([args, code])
    expect(ended.stderr).toMatch(message)
  }
  expect(await readdir(research.folder)).not.toContain('out')

  const refused = await research.run(merge('refused', '--push_to_hub', 'lab/x', '--hub_endpoint', hub.url), { HF_TOKEN: 'hf_another' })
  expect(refused).toMatchObject({ code: 6, stderr: expect.stringMatching(/does not let this token \(HF_TOKEN\) write to lab\/x.*stays in/s) })
  expect(refused.stderr).not.toContain('hf_another')
  expect(await readdir(research.path('refused'))).toContain('config.json')
  const gone = await startHub(TOKEN)
  await gone.close()
  const nobody = await research.run(merge('nobody', '--push_to_hub', 'lab/x', '--hub_endpoint', gone.url), { HF_TOKEN: TOKEN })
  expect(nobody).toMatchObject({ code: 7, stderr: expect.stringMatching(/127\.0\.0\.1:\d+ cannot be reached/) })
})

async function digests(folder: string): Promise<Record<string, string>> {
  const names = await readdir(folder)
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, createHash('sha256').update(await readFile(join(folder, name))).digest('hex')] as const)))
}
