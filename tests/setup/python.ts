import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { access, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import lockfile from 'proper-lockfile';

const ROOT = path.resolve(import.meta.dirname, '../..');
const REQUIREMENTS = path.join(ROOT, 'tests/python/requirements.txt');
const CACHE = path.join(ROOT, '.cache');
const VENV = path.join(CACHE, 'python');
const INTERPRETER = path.join(VENV, 'bin/python');
const STAMP = path.join(VENV, 'portllm-requirements.sha256');
const LOG = path.join(CACHE, 'python.log');
const TORCH_CPU_INDEX = 'https://download.pytorch.org/whl/cpu';
/** numpy 2.4 asks for 3.11. */
const OLDEST_PYTHON_MINOR = 11;

let pending: Promise<string> | undefined;

/**
 * Path of a Python interpreter that has everything in tests/python/requirements.txt.
 * Builds the virtual environment in .cache/python where it is missing or was built from other
 * requirements; a second process that asks meanwhile waits for the first. Progress goes to stderr,
 * pip's output to .cache/python.log. Throws an Error that says what to do when it cannot be built.
 */
export function pythonPath(): Promise<string> {
  pending ??= build().catch((error: unknown) => {
    pending = undefined;
    throw error;
  });
  return pending;
}

async function build(): Promise<string> {
  const wanted = createHash('sha256').update(await readFile(REQUIREMENTS)).digest('hex');
  if (await isCurrent(wanted)) return INTERPRETER;
  await mkdir(CACHE, { recursive: true });
  const release = await lockfile.lock(VENV, {
    realpath: false,
    stale: 30_000,
    retries: { forever: true, minTimeout: 500, maxTimeout: 500 },
  });
  try {
    if (!(await isCurrent(wanted))) await create(wanted);
    return INTERPRETER;
  } finally {
    await release();
  }
}

async function isCurrent(wanted: string): Promise<boolean> {
  try {
    await access(INTERPRETER);
    return (await readFile(STAMP, 'utf8')).trim() === wanted;
  } catch {
    return false;
  }
}

async function create(wanted: string): Promise<void> {
  await writeFile(LOG, '');
  await rm(VENV, { recursive: true, force: true });
  await createVenv();
  await installTorch();
  say('installing the packages of tests/python/requirements.txt');
  await pip(['-r', REQUIREMENTS]);
  if ((await run(INTERPRETER, ['-c', 'import torch, transformers, peft'])) !== 0) {
    throw new Error(`The packages were installed, but \`import torch, transformers, peft\` fails. Its output is at the end of ${LOG}.`);
  }
  await writeFile(STAMP, `${wanted}\n`);
  say(`ready: ${INTERPRETER}`);
}

async function createVenv(): Promise<void> {
  say(`creating a virtual environment in ${VENV} (log: ${LOG})`);
  if (await tryVenv()) return;
  const mayInstall = process.getuid?.() === 0 && (await run('apt-get', ['--version'])) === 0;
  if (mayInstall) {
    say('python3 with venv is missing: apt-get install python3 python3-venv');
    await run('apt-get', ['update']);
    await run('apt-get', ['install', '-y', '--no-install-recommends', 'python3', 'python3-venv']);
    if (await tryVenv()) return;
  }
  throw new Error(
    `The tests need Python 3.${OLDEST_PYTHON_MINOR} or newer with the venv module, and no interpreter on the PATH could create an environment. ` +
      `Install it (Debian and Ubuntu: apt-get install python3 python3-venv; macOS: brew install python3), or set PORTLLM_PYTHON to an interpreter. What was tried is in ${LOG}.`,
  );
}

/** Tries the interpreters on the PATH in turn; one that is too old or lacks ensurepip is passed over. */
async function tryVenv(): Promise<boolean> {
  const named = process.env.PORTLLM_PYTHON;
  const candidates = named === undefined ? ['python3', 'python3.14', 'python3.13', 'python3.12', 'python3.11'] : [named];
  for (const candidate of candidates) {
    const versionCheck = `import sys; sys.exit(sys.version_info < (3, ${OLDEST_PYTHON_MINOR}))`;
    if ((await run(candidate, ['-c', versionCheck])) !== 0) continue;
    if ((await run(candidate, ['-m', 'venv', VENV])) === 0) return true;
    await rm(VENV, { recursive: true, force: true });
  }
  return false;
}

/**
 * Installs torch without CUDA where that is possible: on Linux plain PyPI would bring several
 * gigabytes of CUDA packages. A wheel that pip is configured to find locally comes first.
 */
async function installTorch(): Promise<void> {
  const requirement = (await readFile(REQUIREMENTS, 'utf8')).split('\n').find((line) => line.startsWith('torch=='));
  if (requirement === undefined) throw new Error(`${REQUIREMENTS} names no torch==<version>.`);
  if ((await run(INTERPRETER, ['-m', 'pip', 'install', '--no-index', '--no-deps', requirement])) === 0) {
    say(`${requirement}: from a local wheel`);
    return;
  }
  if (process.platform !== 'linux') return;
  if (await reachable(`${TORCH_CPU_INDEX}/torch/`)) {
    say(`${requirement}: CPU build from ${TORCH_CPU_INDEX}`);
    if ((await run(INTERPRETER, ['-m', 'pip', 'install', '--no-deps', '--index-url', TORCH_CPU_INDEX, requirement])) === 0) return;
  }
  say(`${requirement}: no CPU build within reach, so pip takes PyPI's, with several gigabytes of CUDA packages on some machines`);
}

async function reachable(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { method: 'HEAD', signal: AbortSignal.timeout(5_000) })).ok;
  } catch {
    return false;
  }
}

async function pip(args: string[]): Promise<void> {
  if ((await run(INTERPRETER, ['-m', 'pip', 'install', ...args])) !== 0) {
    throw new Error(`pip could not install the Python packages of the tests; the reason is at the end of ${LOG}. If the network failed, run the command again.`);
  }
}

/** Runs a command with its output appended to the log. Resolves to the exit status, 127 where it cannot be started. */
function run(command: string, args: string[]): Promise<number> {
  return new Promise((resolve) => {
    const log = createWriteStream(LOG, { flags: 'a' });
    log.write(`$ ${command} ${args.join(' ')}\n`);
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    child.on('error', (error) => log.end(`${error.message}\n`, () => resolve(127)));
    child.on('close', (code) => log.end(() => resolve(code ?? 1)));
  });
}

function say(message: string): void {
  process.stderr.write(`python: ${message}\n`);
}

if (import.meta.main) process.stdout.write(`${await pythonPath()}\n`);
