/**
 * `npm run test:terraform`: applies infra/terraform in a network of its own to an emulator of AWS (moto, from PyPI), looks at
 * what is there through the emulator's API, applies again (nothing may change), and destroys it. Needs HashiCorp's registry
 * for the AWS provider, so it is no part of `npm test`; Terraform itself is the `terraform` on the PATH, or comes from PyPI.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { GetBucketEncryptionCommand, GetPublicAccessBlockCommand, S3Client } from '@aws-sdk/client-s3'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { freePort } from '../setup/free-port.ts'
import { EMULATOR, MODULE } from './terraform/schema.ts'
import { terraform, type TerraformResult } from './terraform/terraform.ts'

const MOTO = 'moto[server]==5.2.5'

const folder = await mkdtemp(join(tmpdir(), 'portllm-terraform-'))
const emulator = await startMoto(join(folder, 'moto'))
try {
  const root = join(folder, 'root')
  await cp(EMULATOR, root, { recursive: true })
  await writeFile(join(root, 'main.tf'), (await readFile(join(EMULATOR, 'main.tf'), 'utf8')).replace('../../../infra/terraform', MODULE))
  const run = (...args: string[]) => terraformAt(root, args)
  await run('init', '-input=false')
  await run('apply', '-auto-approve', '-input=false')
  const { bucket } = JSON.parse((await run('output', '-json')).output) as { bucket: { value: string } }
  const s3 = new S3Client({ endpoint: emulator.url, region: 'eu-central-1', forcePathStyle: true, credentials: { accessKeyId: 'emulated', secretAccessKey: 'emulated' } })
  const { PublicAccessBlockConfiguration: block } = await s3.send(new GetPublicAccessBlockCommand({ Bucket: bucket.value }))
  if (!block?.BlockPublicAcls || !block.BlockPublicPolicy || !block.IgnorePublicAcls || !block.RestrictPublicBuckets) throw new Error('the bucket is open to the public')
  await s3.send(new GetBucketEncryptionCommand({ Bucket: bucket.value }))
  const state = await readFile(join(root, 'terraform.tfstate'), 'utf8')
  if (/"(password|secret_string)": "[^"]/.test(state)) throw new Error('a password is in the state')
  // Exit code 2 would say that something differs from what was just made.
  await run('plan', '-detailed-exitcode', '-input=false')
  await run('destroy', '-auto-approve', '-input=false')
  console.log('1 passed, 0 failed')
} catch (error) {
  console.error((error as Error).message)
  console.log('0 passed, 1 failed')
  process.exitCode = 1
} finally {
  await emulator.stop()
  await rm(folder, { recursive: true, force: true })
}

async function terraformAt(root: string, args: string[]): Promise<TerraformResult> {
  console.log(`terraform ${args.join(' ')}`)
  const environment = { AWS_ENDPOINT_URL: emulator.url }
  const ownOne = spawnSync('terraform', ['version']).status === 0
  const result = ownOne ? runOwn(root, args, environment) : await terraform([`-chdir=${root}`, ...args], environment)
  if (result.code !== 0) throw new Error(`terraform ${args.join(' ')} ended with ${result.code}:\n${result.output}`)
  return result
}

function runOwn(cwd: string, args: string[], environment: Record<string, string>): TerraformResult {
  const { status, stdout, stderr } = spawnSync('terraform', args, { cwd, encoding: 'utf8', env: { ...process.env, ...environment } })
  return { code: status, output: stdout + stderr }
}

/** In an environment of its own: moto has many packages that nothing else of ours needs. */
async function startMoto(room: string): Promise<{ url: string; stop(): Promise<void> }> {
  const python = await pythonPath()
  for (const args of [['-m', 'venv', room], ['-m', 'pip', '--python', join(room, 'bin/python'), 'install', '--quiet', MOTO]]) {
    if (spawnSync(python, args, { stdio: ['ignore', 'inherit', 'inherit'] }).status !== 0) throw new Error(`python ${args.join(' ')} failed`)
  }
  const port = await freePort()
  const server = spawn(join(room, 'bin/moto_server'), ['--host', '127.0.0.1', '--port', String(port)], { stdio: ['ignore', 'ignore', 'inherit'] })
  const url = `http://127.0.0.1:${port}`
  for (let tries = 0; !(await fetch(`${url}/moto-api/`).then((answer) => answer.ok, () => false)); tries++) {
    if (tries === 60 || server.exitCode !== null) throw new Error('moto did not start')
    await sleep(500)
  }
  return {
    url,
    async stop() {
      const closed = once(server, 'close')
      server.kill('SIGTERM')
      await closed
    },
  }
}
