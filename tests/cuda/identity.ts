import fc from 'fast-check'
import { CORE_DTYPES, type Library } from '../../gpu-runner/core/library.ts'
import { build, onlyProducts, type Case, type Values } from '../../gpu-runner/core/random-merge.ts'
import { widthOf } from '../../gpu-runner/core/reference.ts'
import { openTensor, type Engine, type MergeFigures, type TensorSpec } from '../../gpu-runner/core/tensor-merge.ts'
import { MERGEABLE_DTYPES, TARGET_DTYPES, type TargetDtype } from '../../patch/dtype.ts'

/** The CUDA path through the same facade as all others, and the path that it must equal. */
export function engines(library: Library): { cuda: Engine; scalar: Engine } {
  return {
    cuda: { library, path: 'cuda', processorPath: 'scalar', threads: 2 },
    scalar: { library, path: 'scalar', processorPath: 'scalar', threads: 2 },
  }
}

export interface Merged {
  readonly path: string
  readonly out: Uint8Array
  readonly figures: MergeFigures
}

/** Merges `w` in bands that end at `cuts`, all at once and in place. */
export async function mergeInBands(engine: Engine, spec: TensorSpec, w: Uint8Array, cuts: readonly number[], figures = true): Promise<Merged> {
  const merge = openTensor(engine, spec, { figures })
  const out = Uint8Array.from(w)
  const rowBytes = w.length / spec.rows
  const bounds = [0, ...cuts, spec.rows]
  const bands = bounds.slice(1).map((end, i) => merge.mergeRows(bounds[i]!, end - bounds[i]!, out.subarray(bounds[i]! * rowBytes, end * rowBytes), out.subarray(bounds[i]! * rowBytes, end * rowBytes)))
  const outcomes = await Promise.allSettled(bands)
  const result = merge.finish()
  const failed = outcomes.find((outcome) => outcome.status === 'rejected')
  if (failed) throw failed.reason
  return { path: merge.path, out, figures: result }
}

/** Throws where the CUDA path does not compute the tensor, or to other bytes or figures than the scalar path. */
export async function checkAgainstScalar(library: Library, spec: TensorSpec, w: Uint8Array, cuts: readonly number[] = [], figures = true): Promise<void> {
  const { cuda, scalar } = engines(library)
  const expected = await mergeInBands(scalar, spec, w, [], figures)
  const actual = await mergeInBands(cuda, spec, w, cuts, figures)
  const name = `${spec.dtype} ${spec.rows} × ${spec.cols}, ranks ${spec.contributions.map((one) => ('rank' in one ? one.rank : '')).join(', ')}`
  if (actual.path !== 'cuda') throw new Error(`${name}: computed by ${actual.path}`)
  const width = widthOf(spec.dtype)
  const at = expected.out.findIndex((byte, i) => byte !== actual.out[i])
  if (at >= 0) {
    const element = Math.floor(at / width)
    const bits = (bytes: Uint8Array) => Buffer.from(bytes.subarray(element * width, (element + 1) * width)).reverse().toString('hex')
    throw new Error(`${name}: element (${Math.floor(element / spec.cols)}, ${element % spec.cols}) is ${bits(actual.out)} where the scalar path has ${bits(expected.out)}`)
  }
  if (JSON.stringify(actual.figures) !== JSON.stringify(expected.figures)) {
    throw new Error(`${name}: the figures are ${JSON.stringify(actual.figures)} where the scalar path has ${JSON.stringify(expected.figures)}`)
  }
}

export interface Shape {
  readonly spec: Case
  /** Where bands end, in percent of the rows. */
  readonly cuts: readonly number[]
  readonly figures: boolean
}

/** Products only: sizes around the tiles' 64 rows and columns, ranks around the 16 that lie in shared memory at once. */
export function shapes(most: { rows: number; cols: number; rank: number }, dtypes: readonly TargetDtype[] = TARGET_DTYPES): fc.Arbitrary<Shape> {
  const size = (max: number) => fc.oneof(fc.integer({ min: 1, max }), fc.constantFrom(1, 4, 63, 64, 65, 128).filter((value) => value <= max))
  return fc.record({
    spec: fc.record({
      dtype: fc.constantFrom(...dtypes),
      rows: size(most.rows),
      cols: size(most.cols),
      kinds: onlyProducts,
      ranks: fc.array(fc.oneof(fc.integer({ min: 1, max: most.rank }), fc.constantFrom(1, 15, 16, 17, 32, 33)), { minLength: 1, maxLength: 3 }),
      values: fc.constantFrom<Values>('ordinary', 'tiny', 'huge', 'special'),
      factorDtype: fc.constantFrom(...MERGEABLE_DTYPES),
      operandDtype: fc.constant<TargetDtype>('F32'),
      weight: fc.constant(1),
      seed: fc.integer({ min: 1, max: 2 ** 31 }),
    }),
    cuts: fc.array(fc.integer({ min: 1, max: 99 }), { maxLength: 2 }),
    figures: fc.boolean(),
  })
}

/** Throws at the first of `count` random shapes that differs. */
export async function checkShapes(library: Library, arbitrary: fc.Arbitrary<Shape>, count: number, seed?: number): Promise<void> {
  await fc.assert(fc.asyncProperty(arbitrary, async ({ spec, cuts, figures }) => {
    const { spec: tensor, reference } = build(spec)
    const rows = [...new Set(cuts.map((cut) => Math.round((cut / 100) * spec.rows)))].filter((row) => row > 0 && row < spec.rows).sort((a, b) => a - b)
    await checkAgainstScalar(library, tensor, reference.w, rows, figures)
  }), { numRuns: count, seed, endOnFailure: seed !== undefined })
}

/** Contributions that make exact ties, near-ties and overflow at some magnitude of W. */
const CONTRIBUTIONS = [0, 2 ** -8, -3 * 2 ** -8, 2 ** -11, 2 ** -25, -3 * 2 ** -25, 2 ** -134, 2 ** 119, 16, -0.3]

/** Every value of a 16-bit or 8-bit dtype as W. */
export async function checkEveryValue(library: Library, dtype: TargetDtype): Promise<void> {
  const width = widthOf(dtype)
  const side = width === 2 ? 256 : 16
  const w = new Uint8Array(side * side * width)
  for (let bits = 0; bits < side * side; bits++) {
    w[bits * width] = bits & 255
    if (width === 2) w[bits * 2 + 1] = bits >> 8
  }
  const filled = (value: number, strides: readonly [number, number]) => ({ bytes: new Uint8Array(new Float32Array(side).fill(value).buffer), dtype: 'F32' as const, offset: 0, strides })
  for (const t of CONTRIBUTIONS) {
    const contribution = { kind: 'product' as const, left: filled(1, [1, 1]), right: filled(Math.fround(t), [side, 1]), rank: 1, scale: 1 }
    await checkAgainstScalar(library, { dtype, rows: side, cols: side, contributions: [contribution] }, w)
  }
}

/** A tensor of pseudo-random bits, quick to make at any size, with NaNs and infinities among them. */
export function largeTensor(dtype: TargetDtype, rows: number, cols: number, ranks: readonly number[]): { spec: TensorSpec; w: Uint8Array } {
  const w = new Uint8Array(rows * cols * widthOf(dtype))
  const words = new Uint32Array(w.buffer, 0, w.length >> 2)
  let state = (rows * 31 + cols) >>> 0 || 1
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  const factor = (count: number, strides: readonly [number, number]) => ({ bytes: new Uint8Array(Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7) / 8).buffer), dtype: 'F32' as const, offset: 0, strides })
  const contributions = ranks.map((rank, p) => ({ kind: 'product' as const, left: factor(rows * rank, [rank, 1]), right: factor(rank * cols, [cols, 1]), rank, scale: Math.fround(1.3 / (p + 1)) }))
  return { spec: { dtype, rows, cols, contributions }, w }
}

/** Dtypes that the core knows; those of one or two bytes can be tried value by value. */
export const NARROW_DTYPES = TARGET_DTYPES.filter((dtype) => CORE_DTYPES[dtype] !== undefined && widthOf(dtype) <= 2)
