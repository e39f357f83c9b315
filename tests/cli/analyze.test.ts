import { mkdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { copyFixture, startCommandLine, type CommandLine } from './command-line.ts'

let cli: CommandLine
let llama: string

beforeAll(async () => {
  cli = await startCommandLine()
  llama = await copyFixture(cli, 'llama')
  await cli.ok('org', 'create', 'lab')
  await cli.ok('publish', join(llama, 'base'), '--name', 'lab/tiny', '--version', '1.0')
  await cli.ok('publish', join(llama, 'evolved'), '--name', 'lab/tiny', '--version', '2.0', '--parent', 'lab/tiny@1.0')
  await cli.ok('publish', join(llama, 'patch-kind'), '--name', 'lab/kind', '--version', '1.0.0', '--base', 'lab/tiny@1.0')
})
afterAll(() => cli.close())

const folders = () => [join(llama, 'patch-kind'), '--base', join(llama, 'base'), '--target', join(llama, 'evolved')]

/** All that does not depend on who measured it, and when. */
function figuresOf({ measured, ...rest }: any): any {
  return rest
}

test('the registry and the folders give the same figures, to the last digit', async () => {
  const analysis = await cli.ok('analyze', 'lab/kind@^1', '--target', 'lab/tiny@2.0')
  expect(analysis).toMatchObject({ state: 'ready', patch: { reference: 'lab/kind@1.0.0' }, base: { reference: 'lab/tiny@1.0' }, target: { reference: 'lab/tiny@2.0' }, result: { measured: { by: cli.proxy.url } } })
  expect(analysis.result.tensors).toHaveLength(8)
  const local = await cli.ok('analyze', ...folders())
  expect(local.result.measured.by).toBe('local')
  expect(figuresOf(local.result)).toEqual(figuresOf(analysis.result))

  const resolved = await cli.run(['resolve', 'lab/kind', '--target', 'lab/tiny@2.0'])
  expect(resolved.stdout).toMatch(/^ {2}evidence attention: drift \d\S*%, patch\/drift \d\S*, interference \S+ \(measured by http/m)

  // It is measured once; the second time there is no job.
  const again = await cli.ok('analyze', 'lab/kind', '--target', 'lab/tiny@2.0')
  expect(again.id).toBe(analysis.id)
  const jobs = await cli.ok('jobs', 'ls', '--kind', 'analyze')
  expect(jobs.map(({ subject, state }: any) => [subject.reference, state])).toEqual([['lab/kind@1.0.0 on lab/tiny@2.0', 'succeeded']])
})

test('people get a table, a report, the picture and the figures as files', async () => {
  const out = join(cli.folder, 'out')
  await mkdir(out)
  const files = ['report.html', 'picture.svg', 'figures.json'].map((name) => join(out, name))
  const ended = await cli.run(['analyze', ...folders(), '--layers', ...files.flatMap((path) => ['--output', path])])
  expect(ended).toMatchObject({ code: 0 })
  expect(ended.stdout).toMatch(/^part +tensors +drift +patch\/drift +interference .*\nattention +8 +\d/m)
  expect(ended.stdout.match(/^\d +attention /gm)).toHaveLength(4)
  expect(ended.stdout).toContain('not a verdict')
  expect(ended.stdout).not.toMatch(/NaN|undefined|\bsafe\b/)

  const [html, svg, json] = await Promise.all(files.map((path) => readFile(path, 'utf8')))
  const analysis = JSON.parse(json!)
  expect(analysis.format).toBe('portllm.analysis/1')
  const registry = await cli.ok('analyze', 'lab/kind', '--target', 'lab/tiny@2.0')
  const picture = await fetch(registry.picture)
  expect([picture.status, picture.headers.get('content-type')]).toEqual([200, 'image/svg+xml; charset=utf-8'])
  expect(await picture.text()).toBe(svg)
  expect(html).toContain(svg!.trim())
  for (const { name } of analysis.tensors) expect(html).toContain(name)
  expect(html).not.toMatch(/<script|src=|href=|NaN|undefined/)
})

test('what cannot be done is said before it is begun', async () => {
  const refusals = [
    [['lab/kind', '--target', 'lab/tiny@2.0', '--output', join(cli.folder, 'report.pdf')], 2, /must end in \.html, \.svg, \.json/],
    [['lab/kind', '--target', 'lab/tiny@2.0', '--output', join(cli.folder, 'nowhere', 'report.html')], 2, /there is no folder/],
    [['lab/kind:0.5', '--target', 'lab/tiny@2.0'], 2, /has a weight/],
    [['lab/kind', '--target', 'lab/tiny'], 2, /names no version/],
    [['lab/nothing', '--target', 'lab/tiny@2.0'], 4, /lab\/nothing does not exist/],
    [[join(llama, 'patch-kind'), '--base', join(llama, 'patch-kind'), '--target', join(llama, 'evolved')], 2, /is a patch, where a model is expected/],
    [[join(llama, 'patch-kind'), '--base', join(llama, 'base'), '--target', join(cli.folder, 'none')], 4, /no such file or folder/],
  ] as const
  for (const [args, code, message] of refusals) {
    const ended = await cli.run(['analyze', ...args])
    expect([args, ended.code]).toEqual([args, code])
    expect(ended.stderr).toMatch(message)
  }
  await expect(stat(join(cli.folder, 'report.pdf'))).rejects.toThrow('ENOENT')
})

test('a patch that does not fit is refused with the reason, in the registry and from folders', async () => {
  const mistral = await copyFixture(cli, 'mistral')
  await cli.ok('publish', join(mistral, 'base'), '--name', 'lab/other', '--version', '1.0')
  for (const args of [['lab/kind', '--target', 'lab/other@1.0'], [join(llama, 'patch-kind'), '--base', join(llama, 'base'), '--target', join(mistral, 'base')]]) {
    const ended = await cli.run(['analyze', ...args, '--json'])
    expect(ended.code).toBe(3)
    expect(ended.json.error).toMatchObject({ code: 'incompatible', details: { reasons: expect.any(Array) } })
  }
})
