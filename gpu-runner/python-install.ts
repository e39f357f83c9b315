import { spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'

const TORCH_CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
/** numpy 2.4 asks for 3.11. */
const OLDEST_PYTHON_MINOR = 11

/** PyTorch with CUDA is several gigabytes larger, and only of use where there is a GPU. */
export type TorchBuild = 'cpu' | 'cuda'

export interface PythonInstallation {
  readonly folder: string
  /** In the folder. */
  readonly interpreter: string
  /** A file of exact pins, torch==VERSION among them. */
  readonly requirements: string
  readonly torch: TorchBuild
  /** Takes the output of every command. */
  readonly log: string
}

/** Makes a virtual environment with the requirements, in place of whatever is in the folder. Progress goes to stderr. */
export async function installPython(wanted: PythonInstallation): Promise<void> {
  const { folder, interpreter, requirements, log } = wanted
  await writeFile(log, '')
  await rm(folder, { recursive: true, force: true })
  await createVenv(folder, log)
  if (wanted.torch === 'cpu') await installCpuTorch(wanted)
  say(`installing the packages of ${requirements}`)
  if ((await run(log, interpreter, ['-m', 'pip', 'install', '-r', requirements])) !== 0) {
    throw new Error(`pip could not install the Python packages; the reason is at the end of ${log}. If the network failed, run the command again.`)
  }
  if ((await run(log, interpreter, ['-c', 'import torch, transformers, peft, datasets, lm_eval'])) !== 0) {
    throw new Error(`The Python packages were installed, but they cannot be imported. The reason is at the end of ${log}.`)
  }
  say(`ready: ${interpreter}`)
}

async function createVenv(folder: string, log: string): Promise<void> {
  say(`creating a virtual environment in ${folder} (log: ${log})`)
  if (await tryVenv(folder, log)) return
  const mayInstall = process.getuid?.() === 0 && (await run(log, 'apt-get', ['--version'])) === 0
  if (mayInstall) {
    say('python3 with venv is missing: apt-get install python3 python3-venv')
    await run(log, 'apt-get', ['update'])
    await run(log, 'apt-get', ['install', '-y', '--no-install-recommends', 'python3', 'python3-venv'])
    if (await tryVenv(folder, log)) return
  }
  throw new Error(
    `Python 3.${OLDEST_PYTHON_MINOR} or newer with the venv module is needed, and no interpreter on the PATH could create an environment. ` +
      `Install it (Debian and Ubuntu: apt-get install python3 python3-venv; macOS: brew install python3), or set PORTLLM_PYTHON to an interpreter. What was tried is in ${log}.`,
  )
}

/** Tries the interpreters on the PATH in turn; one that is too old or lacks ensurepip is passed over. */
async function tryVenv(folder: string, log: string): Promise<boolean> {
  const named = process.env.PORTLLM_PYTHON
  const candidates = named === undefined ? ['python3', 'python3.14', 'python3.13', 'python3.12', 'python3.11'] : [named]
  for (const candidate of candidates) {
    const versionCheck = `import sys; sys.exit(sys.version_info < (3, ${OLDEST_PYTHON_MINOR}))`
    if ((await run(log, candidate, ['-c', versionCheck])) !== 0) continue
    if ((await run(log, candidate, ['-m', 'venv', folder])) === 0) return true
    await rm(folder, { recursive: true, force: true })
  }
  return false
}

/**
 * Installs torch without CUDA where that is possible: on Linux plain PyPI would bring several
 * gigabytes of CUDA packages. A wheel that pip is configured to find locally comes first.
 */
async function installCpuTorch({ interpreter, requirements, log }: PythonInstallation): Promise<void> {
  const requirement = (await readFile(requirements, 'utf8')).split('\n').find((line) => line.startsWith('torch=='))
  if (requirement === undefined) throw new Error(`${requirements} names no torch==<version>.`)
  if ((await run(log, interpreter, ['-m', 'pip', 'install', '--no-index', '--no-deps', requirement])) === 0) {
    say(`${requirement}: from a local wheel`)
    return
  }
  if (process.platform !== 'linux') return
  if (await isReachable(`${TORCH_CPU_INDEX}/torch/`)) {
    say(`${requirement}: CPU build from ${TORCH_CPU_INDEX}`)
    if ((await run(log, interpreter, ['-m', 'pip', 'install', '--no-deps', '--index-url', TORCH_CPU_INDEX, requirement])) === 0) return
  }
  say(`${requirement}: no CPU build within reach, so pip takes PyPI's, with several gigabytes of CUDA packages on some machines`)
}

async function isReachable(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { method: 'HEAD', signal: AbortSignal.timeout(5_000) })).ok
  } catch {
    return false
  }
}

/** Runs a command with its output appended to the log. Resolves to the exit status, 127 where it cannot be started. */
function run(log: string, command: string, args: string[]): Promise<number> {
  return new Promise((resolve) => {
    const output = createWriteStream(log, { flags: 'a' })
    output.write(`$ ${command} ${args.join(' ')}\n`)
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.pipe(output, { end: false })
    child.stderr.pipe(output, { end: false })
    child.on('error', (error) => output.end(`${error.message}\n`, () => resolve(127)))
    child.on('close', (code) => output.end(() => resolve(code ?? 1)))
  })
}

function say(message: string): void {
  process.stderr.write(`python: ${message}\n`)
}
