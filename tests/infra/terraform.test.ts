import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { EMULATOR, MODULE } from './terraform/schema.ts'
import { startStandInProvider, type StandInProvider } from './terraform/stand-in-provider.ts'
import { terraform } from './terraform/terraform.ts'

let folder: string
let provider: StandInProvider

/** In a copy: Terraform writes beside what it reads. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'portllm-terraform-'))
  await cp(MODULE, join(folder, 'module'), { recursive: true })
  provider = await startStandInProvider()
  expect(await run('init', '-backend=false')).toMatchObject({ code: 0 })
})
afterAll(async () => {
  provider?.stop()
  await rm(folder, { recursive: true, force: true })
})

const run = (command: string, ...args: string[]) => terraform([`-chdir=${join(folder, 'module')}`, command, ...args], provider.environment)

test('the module is valid Terraform by the schema of the AWS provider, and formatted', async () => {
  expect(await run('validate')).toEqual({ code: 0, output: expect.stringContaining('The configuration is valid') })
  expect(await run('fmt', '-check', '-diff', '-recursive')).toEqual({ code: 0, output: expect.any(String) })
})

test('so is the try of it on an emulator, which no test here can run', async () => {
  const root = join(folder, 'root')
  await cp(EMULATOR, root, { recursive: true })
  await writeFile(join(root, 'main.tf'), (await readFile(join(EMULATOR, 'main.tf'), 'utf8')).replace('../../../infra/terraform', '../module'))
  const at = (...args: string[]) => terraform([`-chdir=${root}`, ...args], provider.environment)
  expect(await at('init', '-backend=false')).toMatchObject({ code: 0 })
  expect(await at('validate')).toEqual({ code: 0, output: expect.stringContaining('The configuration is valid') })
  expect(await at('fmt', '-check')).toMatchObject({ code: 0 })
})

test('what is planned is closed, encrypted and protected, and wrong variables are refused by name', async () => {
  const { code, output } = await run('test')
  expect([code, output]).toEqual([0, expect.stringMatching(/[1-9]\d* passed, 0 failed/)])
})

test.each([
  ['an argument that AWS does not have', 'validate', 'bucket.tf', 'force_destroy', 'force_delete', /argument named "force_delete" is not expected/],
  ['a missing argument', 'validate', 'database.tf', /^ +instance_class .+\n/m, '', /argument "instance_class" is required/],
  ['a reference to nothing', 'validate', 'runners.tf', 'aws_iam_instance_profile.machines.arn', 'aws_iam_instance_profile.machine.arn', /Reference to undeclared resource/],
  ['a password that would be in the state', 'test', 'database.tf', 'password_wo  ', 'password  ', /[Ee]phemeral value/],
  ['a database that is open to all', 'test', 'database.tf', 'publicly_accessible             = false', 'publicly_accessible = true', /must be private/],
])('%s would be found', async (_what, command, name, from, to, message) => {
  const path = join(folder, 'module', name)
  const text = await readFile(path, 'utf8')
  const broken = text.replace(from, to)
  expect(broken).not.toBe(text)
  try {
    await writeFile(path, broken)
    expect(await run(command)).toEqual({ code: 1, output: expect.stringMatching(message) })
  } finally {
    await writeFile(path, text)
  }
})

test('a runner has a role without permissions, and every role gets its rights on named things', async () => {
  const names = (await readdir(MODULE)).filter((name) => name.endsWith('.tf'))
  const text = (await Promise.all(names.map((name) => readFile(join(MODULE, name), 'utf8')))).join('\n')
  const policies = [...text.matchAll(/^resource "aws_iam_role_policy(?:_attachment)?" "\w+" \{\n(?:  .+\n)+?\}/gm)].map(([block]) => block)
  expect(policies.map((block) => /role += aws_iam_role\.(\w+)\./.exec(block)![1]).sort()).toEqual(['machines', 'registry', 'start_registry', 'start_runner'])
  expect(text).toMatch(/jobRoleArn +=  ?aws_iam_role\.runner\.arn/)
  expect(text).not.toMatch(/managed_policy_arns|inline_policy/)
  const open = [...text.matchAll(/statement \{\n(?: {4}.*\n)+? {2}\}/g)].map(([block]) => block).filter((block) => /resources = \["\*"\]/.test(block) || (/actions += \[[^\]]*\*/.test(block) && !/effect += "Deny"/.test(block)))
  // Amazon's registry takes no narrower resource for a login.
  expect(open).toEqual([expect.stringContaining('actions   = ["ecr:GetAuthorizationToken"]')])
})
