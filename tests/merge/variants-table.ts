/**
 * `node tests/merge/variants-table.ts [name …]` merges the variants and prints how ours and PEFT's stand to the truth.
 * VARIANTS=<folder> takes those that an earlier `oracle.py make-variants --out <folder>` has made.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compareVariant, makeVariants, mergeVariant, readVariants, type Variant, type VariantMerge } from './variants.ts'

const only = process.argv.slice(2)
const made = process.env.VARIANTS
const folder = made ?? (await mkdtemp(join(tmpdir(), 'portllm-variants-')))
const output = join(folder, 'ours')
try {
  const variants = made === undefined ? await makeVariants(folder, only) : await readVariants(folder)
  for (const variant of variants.filter(({ name }) => only.length === 0 || only.includes(name))) {
    for (const merge of variant.merges) console.log(`${variant.name} ${variant.dtype} ${merge.on}`.padEnd(46), await describeMerge(variant, merge))
  }
} finally {
  if (made === undefined) await rm(folder, { recursive: true })
}

async function describeMerge(variant: Variant, merge: VariantMerge): Promise<string> {
  try {
    if (variant.refused !== '') return await mergeVariant(variant, merge, output).then(() => `MERGED, though it should be refused (${variant.refused})`)
    const { elements, differing, crossings, crossing, unexplained, worse, ulps, ourError, peftError, peftWorstTensor } = await compareVariant(variant, merge, output)
    return `elements ${elements} differing ${differing ?? '-'} crossings ${crossings ?? '-'} ${crossing?.toFixed(3) ?? '-'} unexplained ${unexplained} worse ${worse ?? '-'} ulps ${ulps.toFixed(3)} ours ${short(ourError)} PEFT ${short(peftError)} worst tensor ${short(peftWorstTensor)}`
  } catch (error) {
    const reasons = ((error as { details?: { reasons?: { code: string }[] } }).details?.reasons ?? []).map(({ code }) => code)
    return [...reasons, (error as { code?: string }).code].includes(variant.refused) ? `refused (${variant.refused})` : `FAILED ${[...new Set(reasons)].join()} ${String(error).slice(0, 300).replaceAll('\n', ' ')}`
  } finally {
    await rm(output, { recursive: true, force: true })
  }
}

function short(value: number | null): string {
  return value === null ? '-' : value === 0 ? '0' : value.toExponential(1)
}
