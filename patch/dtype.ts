/** Safetensors dtype names and their size in bits (safetensors reference, `Dtype::bitsize`). */
export const DTYPE_BITS = {
  BOOL: 8, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8,
  I16: 16, U16: 16, F16: 16, BF16: 16,
  I32: 32, U32: 32, F32: 32,
  C64: 64, F64: 64, I64: 64, U64: 64,
  F4: 4, F6_E2M3: 6, F6_E3M2: 6,
} as const

export type Dtype = keyof typeof DTYPE_BITS

/** Dtypes of factors and magnitudes: float32 holds their values exactly. */
export const MERGEABLE_DTYPES = ['F32', 'F16', 'BF16'] as const satisfies readonly Dtype[]
export type MergeableDtype = (typeof MERGEABLE_DTYPES)[number]

/** Dtypes of the tensors that the merge core reads and writes (docs/numerics.md). */
export const TARGET_DTYPES = [...MERGEABLE_DTYPES, 'F64', 'F8_E4M3', 'F8_E5M2'] as const satisfies readonly Dtype[]
export type TargetDtype = (typeof TARGET_DTYPES)[number]

export function isDtype(name: string): name is Dtype {
  return Object.hasOwn(DTYPE_BITS, name)
}

export function isMergeable(dtype: Dtype): dtype is MergeableDtype {
  return (MERGEABLE_DTYPES as readonly string[]).includes(dtype)
}

export function isTargetDtype(dtype: Dtype): dtype is TargetDtype {
  return (TARGET_DTYPES as readonly string[]).includes(dtype)
}
