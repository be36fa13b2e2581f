export interface Spread {
  median: number
  /** The first quartile. */
  low: number
  /** The third quartile. */
  high: number
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  return {
    median: quantile(sorted, 0.5),
    low: quantile(sorted, 0.25),
    high: quantile(sorted, 0.75),
  }
}

export function median(values: readonly number[]): number {
  return spreadOf(values).median
}

/** Takes values in ascending order; interpolates between neighbours. */
export function quantile(sorted: ArrayLike<number>, share: number): number {
  const at = (sorted.length - 1) * share
  const [below = Number.NaN, above = below] = [sorted[Math.floor(at)], sorted[Math.ceil(at)]]
  return below + (above - below) * (at - Math.floor(at))
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
