/** Returns how often something is tried: as often as it takes to find what is rare, or a `few` times in `npm test`. */
export function runsOf(all: number, few = 300): number {
  return process.env.RUNS === 'all' ? all : few
}
