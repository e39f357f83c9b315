export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

export function mean(values: readonly number[]): number {
  return sum(values) / values.length
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

/** Spearman's rank correlation of pairs; ties share their mean rank. Null where it is not defined: fewer than three pairs, or no spread. */
export function rankCorrelation(pairs: readonly (readonly [number, number])[]): number | null {
  if (pairs.length < 3) return null
  const [x, y] = [ranks(pairs.map(([first]) => first)), ranks(pairs.map(([, second]) => second))]
  const [meanX, meanY] = [mean(x), mean(y)]
  const covariance = sum(x.map((rank, index) => (rank - meanX) * (y[index]! - meanY)))
  const spread = Math.sqrt(sumOfSquares(x, meanX) * sumOfSquares(y, meanY))
  return spread === 0 ? null : covariance / spread
}

function sumOfSquares(values: readonly number[], centre: number): number {
  return sum(values.map((value) => (value - centre) ** 2))
}

function ranks(values: readonly number[]): number[] {
  return values.map((value) => {
    const below = values.filter((other) => other < value).length
    const equal = values.filter((other) => other === value).length
    return below + (equal + 1) / 2
  })
}

/** Least and greatest; `otherwise` where there are none, or only one. */
export function extent(values: readonly number[], otherwise: readonly [number, number]): [number, number] {
  const [least, greatest] = [Math.min(...values), Math.max(...values)]
  return least < greatest ? [least, greatest] : [...otherwise]
}
