import { run } from '../../gpu-runner/core/run-command.ts'
import { kernelName } from '../../gpu-runner/core/cuda/resources.ts'

/** How often each instruction stands in one kernel's machine code, modifiers included: `FFMA`, `LDG.E.EF.128`, … */
export interface KernelCode {
  readonly kernel: string
  readonly arch: number
  readonly instructions: ReadonlyMap<string, number>
}

/** Disassembles every kernel of every architecture in a fat binary. */
export async function readCode(cuobjdump: string, binary: string): Promise<KernelCode[]> {
  const result = await run(cuobjdump, ['-sass', binary])
  if (result === 'missing' || result.status !== 0) throw new Error(`cuobjdump failed: ${result === 'missing' ? 'missing' : result.output.slice(0, 1000)}`)
  const found: { kernel: string; arch: number; instructions: Map<string, number> }[] = []
  let arch = 0
  for (const line of result.output.split('\n')) {
    const code = /^\s*arch = sm_(\d+)|code for sm_(\d+)/.exec(line)
    if (code) arch = Number(code[1] ?? code[2])
    const name = /Function : (\S+)/.exec(line)
    if (name) found.push({ kernel: kernelName(name[1]!), arch, instructions: new Map() })
    const instruction = /^\s+\/\*[0-9a-f]{4,}\*\/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)/.exec(line)?.[1]
    const counts = found.at(-1)?.instructions
    if (instruction && counts) counts.set(instruction, (counts.get(instruction) ?? 0) + 1)
  }
  return found
}

/** Sum over the instructions that match. */
export function count({ instructions }: KernelCode, pattern: RegExp): number {
  return [...instructions].reduce((sum, [name, times]) => sum + (pattern.test(name) ? times : 0), 0)
}
