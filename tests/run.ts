/**
 * `npm test`: sets up what the tests need, checks the tree, runs every test, and ends with
 * the line `N passed, N failed`. Each step of the set-up counts as one.
 */
import { spawn } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

interface Count { passed: number; failed: number }

const STEPS: readonly (readonly [string, readonly string[]])[] = [
  ['native merge core', ['node', 'gpu-runner/core/build.ts']],
  ['fuzz targets (clang, sanitizers)', ['node', 'tests/hostile/build.ts']],
  ['Python environment (PyTorch, transformers, PEFT, lm-eval)', ['node', 'gpu-runner/python-environment.ts']],
  ['openapi.yaml equals the routes', ['node', 'api/openapi.ts', '--check']],
  ['client types', ['openapi-typescript', 'openapi.yaml', '-o', 'build/openapi.d.ts']],
  ['types', ['tsc', '-p', 'tsconfig.json']],
]

function run(command: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const [file, ...args] = command
    const child = spawn(file!, args, { stdio: ['ignore', 'inherit', 'inherit'] })
    child.on('error', reject)
    child.on('close', (code) => resolve(code ?? 1))
  })
}

async function runSteps(): Promise<Count> {
  const count = { passed: 0, failed: 0 }
  for (const [name, command] of STEPS) {
    const started = performance.now()
    const code = await run(command)
    count[code === 0 ? 'passed' : 'failed']++
    console.log(`${code === 0 ? 'ok    ' : 'FAILED'} ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
  }
  return count
}

async function runVitest(args: readonly string[]): Promise<Count> {
  const report = join(tmpdir(), `portllm-vitest-${process.pid}.json`)
  const code = await run([
    'vitest', 'run', '--config', 'tests/vitest.config.ts', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`, ...args,
  ])
  const result = await readFile(report, 'utf8').then(JSON.parse, () => null)
  await rm(report, { force: true })
  if (result === null) return { passed: 0, failed: 1 }
  const failed: number = result.numFailedTests + result.numPendingTests
  // A suite that fails to load, or an unhandled error, has no failed test of its own.
  return { passed: result.numPassedTests, failed: failed === 0 && code !== 0 ? 1 : failed }
}

const steps = await runSteps()
const tests = await runVitest(process.argv.slice(2))
const passed = steps.passed + tests.passed
const failed = steps.failed + tests.failed
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
