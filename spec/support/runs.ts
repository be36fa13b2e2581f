/** Returns the number of rounds of a property: `all` of them in `npm run test:faults` and in `.ci/run`, a few in `npm test`. */
export function runsOf(all: number, few = 300): number {
  return process.env.RUNS === 'all' ? all : few
}
