import type { Adapter, AdapterTensor } from './adapter.ts'
import type { Edit } from './edit.ts'
import type { AdapterEdits } from './edits.ts'
import { refusal } from './reason.ts'
import type { Reason } from './resolution.ts'

/**
 * Every value of the adapter lands exactly once, or is known to have no effect. A factor that mixes inputs serves every
 * tensor that holds some of the rows (fused experts on disk), so only its parts are counted; a value that makes a row
 * serves one. Where a refusal explains a lack, it is not told twice.
 */
export function checkConsumption(adapter: Adapter, { edits, idle }: Pick<AdapterEdits, 'edits' | 'idle'>, reasons: readonly Reason[]): Reason[] {
  const isExplained = reasons.some(({ severity }) => severity === 'refusal')
  const used = countValues(edits)
  const named = new Set([...edits.flatMap(({ consumes }) => consumes), ...idle])
  return tensorsOf(adapter).flatMap(({ name, shape }) => {
    const size = shape.reduce((product, length) => product * length, 1)
    const { values, again } = used.get(name) ?? { values: named.has(name) ? size : 0, again: false }
    if ((values === size && !again) || (values < size && isExplained)) return []
    const found = again ? 'some more than once' : `${values} of ${size}`
    return [refusal('unused-adapter-tensor', `Of the values of the adapter's ${name}, ${again ? found : `${values} of ${size}`} land on the target.`, { tensor: name, expected: `each of ${size} once`, found })]
  })
}

interface Use {
  values: number
  /** Whether a value that makes a row is used twice. */
  again: boolean
}

function countValues(edits: readonly Edit[]): Map<string, Use> {
  const used = new Map<string, Use>()
  const seen = new Set<string>()
  const count = (tensor: string, place: string, values: number, once: boolean) => {
    const use = used.get(tensor) ?? { values: 0, again: false }
    const key = `${tensor}\n${place}`
    if (!seen.has(key)) use.values += values
    else if (once) use.again = true
    seen.add(key)
    used.set(tensor, use)
  }
  for (const edit of edits) {
    const { rows, cols } = edit
    if (edit.kind === 'dense' || edit.kind === 'replace') {
      count(edit.value.tensor, `${edit.value.offset}`, rows.count * cols, true)
      continue
    }
    const { left, right, rank } = edit
    count(left.tensor, `${left.offset} ${left.strides}`, rows.count * rank, true)
    count(right.tensor, `${right.offset} ${right.strides}`, rank * cols, false)
    if (edit.kind === 'dora') count(edit.magnitude.tensor, `${edit.magnitude.offset}`, edit.axis === 'rows' ? rows.count : cols, true)
  }
  return used
}

function tensorsOf({ modules, values, tokens, repeated }: Adapter): AdapterTensor[] {
  return [...modules.flatMap(({ a, b, magnitude, bias }) => [a, b, magnitude, bias].filter((tensor) => tensor !== null)), ...values.map(({ tensor }) => tensor), ...tokens.map(({ tensor }) => tensor), ...repeated]
}
