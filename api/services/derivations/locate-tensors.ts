import type { Extent } from '../../../patch/extent.ts'
import { sliceExtents } from '../../../patch/layout.ts'
import type { Contribution, StoredBytes } from '../../../patch/merge-plan.ts'
import type { LocatedBytes, LocatedTensor } from '../../ports/tensor-merger.ts'
import type { MergePlan } from './plan-merge.ts'

interface FileRange { readonly file: string; readonly offset: number; readonly length: number }

/** The changed tensors of a plan, with every byte that they are made of located in blobs. */
export function locateTensors(plan: MergePlan): LocatedTensor[] {
  const locate = <B extends StoredBytes>(bytes: B) => ({ ...locateRange(extentsOf(plan, bytes), bytes), dtype: bytes.dtype as B['dtype'] })
  return plan.changed.map(({ name, dtype, rows, cols, source, factors, blocks }) => ({
    name, dtype, rows, cols,
    source: locateRange(plan.targetExtents, source),
    factors: factors.map((factor) => locate(factor)),
    blocks: blocks.map((block) => ({ ...block, contributions: block.contributions.map((one) => locateContribution(one, locate)) })),
  }))
}

/** A range of a file, which lies in one extent: tensors are not cut. */
export function locateRange(extents: ReadonlyMap<string, readonly Extent[]>, { file, offset, length }: FileRange): Extent {
  const [extent, ...more] = sliceExtents(extents.get(file)!, offset, offset + length)
  if (extent === undefined || more.length > 0) throw new Error(`the bytes from ${offset} on of ${file} lie in ${1 + more.length} extents, not in one`)
  return extent
}

function extentsOf(plan: MergePlan, { of, patch }: StoredBytes): ReadonlyMap<string, readonly Extent[]> {
  return (of === 'base' ? plan.baseExtents : plan.patchExtents)[patch]!
}

function locateContribution(one: Contribution<StoredBytes>, locate: (bytes: StoredBytes) => LocatedBytes): Contribution<LocatedBytes> {
  switch (one.kind) {
    case 'product': case 'dora': return one
    case 'initial': return { ...one, base: locate(one.base) }
    case 'dense': return { ...one, value: locate(one.value), base: one.base && locate(one.base) }
    case 'replace': return { ...one, value: locate(one.value) }
  }
}
