import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { loadCore } from '../../gpu-runner/core/core.ts'
import type { MergeableDtype } from '../../patch/dtype.ts'
import { pythonPath } from '../../gpu-runner/python-environment.ts'
import { ROOT } from '../setup/registry.ts'
import { readTensors, valuesOf } from './stored-tensors.ts'

function distance(a: Float64Array, b: Float64Array): number {
  const norm = (value: (at: number) => number) => Math.sqrt(b.reduce((sum, _, at) => sum + value(at) ** 2, 0))
  return norm((at) => a[at]! - b[at]!) / norm((at) => b[at]!)
}

test("what PiSSA and OLoRA take out of a base is numpy's float64 decomposition, and PEFT's start to float32's accuracy", async () => {
  const folder = await mkdtemp(join(tmpdir(), 'portllm-initial-'))
  try {
    const file = join(folder, 'cases.safetensors')
    const { stdout } = await promisify(execFile)(await pythonPath(), [join(ROOT, 'tests/python/initial_factors.py'), '--out', file])
    const [core, tensors] = await Promise.all([loadCore(), readTensors(file)])
    const cases = JSON.parse(stdout) as { name: string; rank: number }[]
    expect(cases).toHaveLength(12)
    for (const { name, rank } of cases) {
      const { dtype, shape: [rows, cols], bytes } = tensors.get(name) as { dtype: MergeableDtype; shape: [number, number]; bytes: Buffer }
      for (const method of ['pissa', 'olora'] as const) {
        const { left, right } = await core.initialFactors({ method, base: bytes, dtype, rows, cols, rank })
        const [l, r] = [left, right].map((factor) => new Float32Array(factor.bytes.buffer))
        const ours = Float64Array.from({ length: rows * cols }, (_, at) => {
          let sum = 0
          for (let k = 0; k < rank; k++) sum += l![Math.floor(at / cols) * rank + k]! * r![k * cols + (at % cols)]!
          return sum
        })
        const exact = valuesOf(tensors.get(`${name}.${method}.exact`)!)
        expect(distance(ours, exact), `${name} ${method}`).toBeLessThan(1e-7)
        if (dtype !== 'F32') continue
        const peft = valuesOf(tensors.get(`${name}.${method}.peft`)!)
        expect(distance(ours, peft), `${name} ${method}, from PEFT`).toBeLessThan(2e-5)
        expect(distance(ours, exact), `${name} ${method}, beside PEFT`).toBeLessThan(distance(peft, exact))
      }
    }
  } finally {
    await rm(folder, { recursive: true })
  }
})
