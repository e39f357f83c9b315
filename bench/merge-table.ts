import type { MergeProfile } from '../gpu-runner/core/core.ts'
import type { KernelBench } from './kernel.ts'
import type { PeakMemory } from './peak-memory.ts'
import type { ReflinkBench } from './reflink.ts'
import type { SeveralPatches } from './several-patches.ts'
import type { Timing } from './timing.ts'

export interface OtherResult {
  readonly seconds: Timing
  readonly peakBytes: number
  readonly differing: number
  readonly elements: number
}

/** A part that could not be measured is the sentence that says so. */
export interface MergeResults {
  readonly command: string
  readonly machine: { readonly processor: string; readonly processors: number; readonly loadBefore: number; readonly path: string }
  readonly seconds: Record<string, Timing>
  /** Of each row's last run. */
  readonly profiles: Record<string, MergeProfile>
  readonly bytes: Record<string, number>
  readonly others: Record<string, Record<string, OtherResult> | string>
  readonly memory: { readonly core: PeakMemory; readonly command: PeakMemory; readonly idle: PeakMemory } | string
  readonly kernel: KernelBench | string
  readonly reflink: ReflinkBench | string
  readonly several: readonly SeveralPatches[] | string
}

const ADAPTERS = ['all-linear r=16', 'q,v r=8']

/** The merge table of targets.md as Markdown. */
export function renderMergeTable(results: MergeResults): string {
  const { machine, command } = results
  return [
    `\`${command}\` on ${machine.processors} × ${machine.processor}, path ${machine.path}, load average before ${machine.loadBefore.toFixed(1)}.`,
    merges(results), phases(results), ...others(results), several(results), memory(results), kernel(results),
  ].join('\n\n')
}

function merges({ seconds, others, reflink }: MergeResults): string {
  const cp = seconds['cp']!
  const synced = seconds['cp and sync']!
  const cell = ({ median, minimum }: Timing) => `${median.toFixed(2)} (${minimum.toFixed(2)})`
  const row = (name: string, shown: string, reference: Timing, target: string) => {
    const own = seconds[name]!
    const whole = seconds[`${name}, whole process`]
    const peft = typeof others['PEFT'] === 'object' ? others['PEFT'][ADAPTERS.find((adapter) => name.startsWith(adapter))!]! : null
    const overPeft = peft === null || name.includes('changed') ? '' : `${(peft.seconds.median / own.median).toFixed(1)} × faster than PEFT's ${peft.seconds.median.toFixed(1)} s`
    return [shown, `${cell(own)}${whole ? `; with Node's start ${whole.median.toFixed(2)}` : ''}`, `${(own.median / reference.median).toFixed(2)} (${(own.minimum / reference.minimum).toFixed(2)})`, overPeft, target]
  }
  return table(['merge of the 2.2 GB model', 'median (minimum) s', 'over the copy, medians (minima)', 'over PEFT', 'target'], [
    ['`cp`', cell(cp), '', '', ''],
    row('all-linear r=16, complete', 'all-linear r=16, complete', cp, '≤ 1.1 × cp; ≥ 20 × PEFT'),
    row('q,v r=8, complete', 'q,v r=8, complete', cp, '≤ 1.0 × cp; ≥ 5 × PEFT'),
    row('q,v r=8, changed', 'q,v r=8, changed tensors alone', cp, '≤ 0.15 × cp'),
    row('all-linear r=16, changed', 'all-linear r=16, changed tensors alone', cp, ''),
    ...(typeof reflink === 'string' ? [['q,v r=8, complete, where the file system clones', reflink, '', '', '≤ 0.12 × cp']] : [
      [`\`cp --reflink=never\` on ${reflink.fileSystem}`, cell(reflink.copy), '', '', ''],
      [`q,v r=8, complete, on ${reflink.fileSystem}${reflink.cloned ? '' : ' (nothing was cloned)'}`, cell(reflink.merge), `${(reflink.merge.median / reflink.copy.median).toFixed(2)} (${(reflink.merge.minimum / reflink.copy.minimum).toFixed(2)})`, '', '≤ 0.12 × cp'],
    ]),
    ['`cp` and `sync` of its files', cell(synced), '', '', ''],
    row('all-linear r=16, complete, synced', 'all-linear r=16, complete, fsync', synced, ''),
    row('q,v r=8, complete, synced', 'q,v r=8, complete, fsync', synced, ''),
    row('all-linear r=16, command', '`portllm merge`, all-linear r=16: the whole command, fsync included', synced, ''),
    row('q,v r=8, command', '`portllm merge`, q,v r=8: the whole command, fsync included', synced, ''),
  ])
}

function phases({ profiles }: MergeResults): string {
  const keys = ['seconds', 'factors', 'read', 'kernel', 'write', 'copy'] as const
  return table(['where the last run\'s time went, s', 'merge', 'factors', 'read', 'kernel', 'write', 'copy'],
    Object.entries(profiles).map(([name, profile]) => [name, ...keys.map((key) => profile[key].toFixed(3))])) +
    '\n\nRead, kernel, write and copy are of all threads together.'
}

function others({ others: measured, seconds }: MergeResults): string[] {
  const rows = Object.entries(measured).flatMap(([tool, results]) => typeof results === 'string' ? [[tool, results, '', '', '', '']] : Object.entries(results).map(([adapter, one]) => {
    const own = seconds[`${adapter}, complete`]!
    return [`${tool}, ${adapter}`, `${one.seconds.median.toFixed(2)} (${one.seconds.minimum.toFixed(2)})`, `${(one.seconds.median / own.median).toFixed(1)} ×`, mega(one.peakBytes), `${one.differing} of ${one.elements}`, tool === 'PEFT' ? '0' : '']
  }))
  return [table(['other tools, without their imports', 'median (minimum) s', 'ours is faster by', 'resident memory', 'elements with other bits than ours', 'target'], rows)]
}

function several({ several: measured }: MergeResults): string {
  if (typeof measured === 'string') return `Several patches: ${measured}.`
  const part = (share: number) => (share < 0.001 ? share.toExponential(1) : `${(100 * share).toFixed(0)}%`)
  return table(['misrounded elements of several patches of 1% of W each, against float64', 'at once, ours', 'one after another, PEFT', 'target'],
    measured.map(({ patches, ours, peft }) => [`${patches} patches`, part(ours), part(peft), patches === 16 ? '≤ 2e-5' : '']))
}

function memory({ memory: measured }: MergeResults): string {
  if (typeof measured === 'string') return `Memory: ${measured}.`
  const { core, command, idle } = measured
  return table(['memory at the peak, all-linear r=16, complete', 'anonymous', 'resident', 'target'], [
    ['Node with the modules loaded', mega(idle.anonymous), mega(idle.resident), ''],
    ['the merge', mega(core.anonymous), mega(core.resident), `≤ 64 MB anonymous more than Node: ${mega(core.anonymous - idle.anonymous)}`],
    ['`portllm merge`', mega(command.anonymous), mega(command.resident), '≤ 256 MB for a whole process'],
  ])
}

function kernel({ kernel: measured, machine }: MergeResults): string {
  if (typeof measured === 'string') return `Kernel: ${measured}.`
  return table([`kernel, ${machine.processors} threads, memory to memory`, 'GB/s of W', `over memcpy (${(measured.memcpyBytesPerSecond / 1e9).toFixed(1)} GB/s)`, `over the roofline (${(measured.fmaPerSecond / 1e9).toFixed(0)} G fma/s)`, 'target'],
    measured.kernels.map(({ rank, figures, bytesPerSecond, overMemcpy, overRoofline }) =>
      [`r=${rank}${figures ? ', with the receipt\'s figures' : ''}`, (bytesPerSecond / 1e9).toFixed(1), overMemcpy.toFixed(2), overRoofline.toFixed(2), figures ? '' : '≥ 0.9 of the roofline']))
}

function mega(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`
}

function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  return [heading, heading.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}
