import type { Dtype } from '../../patch/dtype.ts'
import { CORE_DTYPES, CoreError } from './library.ts'
import type { Engine, FactorBytes } from './tensor-merge.ts'

/** What a method took out of a tensor of the base when training began. */
export interface InitialFactorsSpec {
  readonly method: 'pissa' | 'olora'
  /** The tensor as stored, seen as a row-major matrix, in any dtype of a target but F64. */
  readonly base: Uint8Array
  readonly dtype: Dtype
  readonly rows: number
  readonly cols: number
  readonly rank: number
}

/** `left @ right`, in float32; as a product of the scale −w for PiSSA, and −w·alpha/rank for OLoRA, it takes the start out again. */
export interface InitialFactors {
  /** (rows, rank) */
  readonly left: FactorBytes
  /** (rank, cols) */
  readonly right: FactorBytes
  readonly rank: number
}

/** In the order of portllm_initial. */
const METHODS: readonly string[] = ['pissa', 'olora']

export async function initialFactors({ library, threads }: Engine, { method, base, dtype, rows, cols, rank }: InitialFactorsSpec): Promise<InitialFactors> {
  for (const [name, value] of Object.entries({ rows, cols, rank })) {
    if (!Number.isSafeInteger(value) || value < 0) throw new CoreError('invalid', `${name} is ${value}: a whole number is needed`)
  }
  if (rows * cols > base.byteLength) throw new CoreError('invalid', `the base has ${base.byteLength} bytes, too few for ${rows} x ${cols} elements`)
  if (rank > Math.min(rows, cols)) throw new CoreError('invalid', `the rank is ${rank}, but a matrix of ${rows} x ${cols} has at most ${Math.min(rows, cols)}`)
  const [left, right] = [new Float32Array(rows * rank), new Float32Array(rank * cols)]
  await library.initialFactors(METHODS.indexOf(method), { bytes: base, dtype: CORE_DTYPES[dtype] ?? -1 }, rows, cols, rank, threads, left, right)
  return { left: factor(left, rank), right: factor(right, cols), rank }
}

/** Vectors of the space in which those of PiSSA are looked for, as a rule at most. */
const SPACE = 1024

/** Most bytes that the computing takes beside base and factors, about: all in float64. */
export function initialFactorsMemory({ method, rows, cols, rank }: Pick<InitialFactorsSpec, 'method' | 'rows' | 'cols' | 'rank'>): number {
  const size = Math.min(rows, cols)
  const vectors = method === 'pissa' ? Math.min(size, SPACE) : 0
  // The space, the matrix within it with its eigenvectors, and the factors with what they are multiplied in.
  return 8 * vectors * size + 16 * vectors ** 2 + 24 * rank * (rows + cols)
}

function factor(values: Float32Array<ArrayBuffer>, cols: number): FactorBytes {
  return { bytes: new Uint8Array(values.buffer), dtype: 'F32', offset: 0, strides: [cols, 1] }
}
