/**
 * The main job on the embedded default, with the real server and the real command line:
 * a model evolves, a patch trained on its old version is ported to the new one, and the merged
 * model is fetched and verified. `npm run demo -- --serve` keeps the registry running.
 */
import { readFile, rm } from 'node:fs/promises'
import { basename, join, relative } from 'node:path'
import { parseArgs, styleText } from 'node:util'
import { makeFolder } from '../../gpu-runner/make-folder.ts'
import { portllm, ROOT, startRegistry, type Registry } from '../setup/registry.ts'
import { weightDigests } from '../setup/weight-digests.ts'

const HELP = `Usage: npm run demo -- [options]

Publishes a model, its evolved version and a patch trained on the old one, ports the patch, and
verifies the merged bytes against a merge made without the registry.

  --architecture NAME   llama, mistral or gemma2 (default llama)
  --data DIR            the demo's folder, emptied first (default .portllm/demo)
  --serve               keep the registry running and print the merged model's page
  --port N              port of the registry (default: a free one)
`

interface Scores {
  models: Record<string, { drift: number; patches: { name: string; task: string; variety: string; accuracy: Record<'base' | 'base_patched' | 'evolved' | 'evolved_patched', number> }[] }>
  tasks: Record<string, { examples: number; chance: number }>
}

const options = readOptions()

function readOptions() {
  try {
    return parseArgs({
      options: {
        architecture: { type: 'string', default: 'llama' },
        data: { type: 'string', default: join(ROOT, '.portllm/demo') },
        serve: { type: 'boolean', default: false },
        port: { type: 'string', default: '0' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${HELP}`)
    process.exit(1)
  }
}

let stepNumber = 0
function step(title: string): void {
  stepNumber++
  console.log(`\n${styleText('bold', `${stepNumber}. ${title}`)}`)
}

/** Runs the real command line, shows the command, and gives its `--json` answer. */
function run(registry: Registry | null, ...args: string[]): Promise<Record<string, any>> {
  console.log(styleText('cyan', `   $ portllm ${args.map((arg) => (arg.startsWith('/') ? relative(ROOT, arg) : arg)).join(' ')}`))
  return portllm(registry, args, { configFolder: join(options.data, 'config'), showProgress: true })
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)}%`.padStart(6)
}

function kilobytes(bytes: number): string {
  return `${(bytes / 1000).toFixed(0)} kB`
}

async function main(): Promise<void> {
  if (options.help) return void process.stdout.write(HELP)
  const { architecture, data } = options
  const scores = JSON.parse(await readFile(join(ROOT, 'tests/fixtures/scores.json'), 'utf8')) as Scores
  const model = scores.models[architecture]
  if (!model) throw new Error(`there is no fixture named ${architecture}: use one of ${Object.keys(scores.models).join(', ')}`)
  const fixture = join(ROOT, 'tests/fixtures', architecture)
  const patch = model.patches[0]!
  const task = scores.tasks[patch.task]!
  const [base, evolved, patchRef] = [`lab/tiny-${architecture}@1.0`, `lab/tiny-${architecture}@2.0`, `hospital/${patch.task}@1.0.0`]

  await rm(data, { recursive: true, force: true })
  await makeFolder(data)

  step('Start a registry: Node, an embedded PostgreSQL, a folder, and a runner with the native core')
  const registry = await startRegistry(join(data, 'registry'), { port: options.port })
  console.log(`   listening on ${registry.url}`)
  try {
    await run(registry, 'org', 'create', 'lab')
    await run(registry, 'org', 'create', 'hospital')

    step('A lab publishes a model, and later its evolved version')
    await run(registry, 'publish', join(fixture, 'base'), '--name', base.split('@')[0]!, '--version', '1.0')
    await run(registry, 'publish', join(fixture, 'evolved'), '--name', base.split('@')[0]!, '--version', '2.0', '--parent', base, '--parent-kind', 'continued-pretraining')
    console.log(`   the weights moved by ${percent(model.drift).trim()} between the two`)

    step('A hospital publishes the patch that it trained on the old version')
    await run(registry, 'publish', join(fixture, patch.name), '--name', `hospital/${patch.task}`, '--version', '1.0.0', '--base', base)

    step('Does it fit the new version?')
    const resolution = await run(registry, 'resolve', patchRef, '--target', evolved)
    console.log(`   verdict: ${styleText('green', resolution.verdict)}`)
    for (const reason of resolution.patches[0].reasons) console.log(`   - ${reason.message}`)

    step('GET the merged model')
    const merged = join(data, 'merged')
    const got = await run(registry, 'get', evolved, '--patch', patchRef, '--output', merged)
    const total = got.files.reduce((sum: number, file: { size: number }) => sum + file.size, 0)
    console.log(`   ${got.files.length} files, ${kilobytes(total)}; the registry keeps ${kilobytes(got.storedBytes)} for it: new headers. The changed tensors are ${got.storage} whenever they are fetched`)

    step('Or have the changed tensors kept: the same bytes, for more space')
    const kept = await run(registry, 'storage', got.derivation, 'materialised')
    console.log(`   ${kept.storage}: ${kilobytes(kept.storedBytes)} for the changed tensors and the headers`)

    step('Verify: merge again without the registry, and compare every byte of the weights')
    const local = join(data, 'merged-locally')
    await run(null, 'merge', join(fixture, 'evolved'), join(fixture, patch.name), '--base', join(fixture, 'base'), '--output', local)
    const [theirs, ours] = [await weightDigests(merged), await weightDigests(local)]
    for (const [name, digest] of theirs) {
      if (ours.get(name) !== digest) throw new Error(`${name} differs: the registry gave ${digest}, the local merge ${ours.get(name)}`)
      console.log(`   ${styleText('green', 'identical')} ${digest.slice(0, 16)}… ${name}`)
    }
    if (theirs.size === 0 || theirs.size !== ours.size) throw new Error(`${merged} has ${theirs.size} weight files, ${local} has ${ours.size}`)

    step(`What it is for: accuracy on "${patch.task}", ${task.examples} held-out examples, chance ${percent(task.chance).trim()} (tests/fixtures/make.py)`)
    const rows = [['base', 'base'], ['base + patch', 'base_patched'], ['evolved', 'evolved'], ['evolved + ported patch', 'evolved_patched']] as const
    for (const [label, key] of rows) console.log(`   ${label.padEnd(24)} ${percent(patch.accuracy[key])}  ${'█'.repeat(Math.round(40 * patch.accuracy[key]))}`)

    const page = `${registry.url}/derivations/${got.derivation}`
    if (!options.serve) {
      console.log(`\nDone. The merged model is in ${relative(process.cwd(), merged) || basename(merged)}; --serve keeps the registry running.`)
      return
    }
    console.log(`\nThe registry keeps running. Its page for the merged model:\n   ${styleText('bold', page)}\n   token: ${registry.token}\nStop it with Ctrl-C.`)
    await new Promise<void>((resolve) => process.once('SIGINT', resolve).once('SIGTERM', resolve))
  } finally {
    await registry.stop()
  }
}

main().catch((error: Error) => {
  console.error(styleText('red', `demo failed: ${error.message}`))
  process.exitCode = 1
})
