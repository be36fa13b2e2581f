/** How often every fault happens: once in the short run, as often as `FAULTS_ROUNDS` says in a long one. */
export const roundCount = Math.max(1, Math.trunc(Number(process.env.FAULTS_ROUNDS ?? 1)))

/** The numbers of the rounds, for `describe.each`. */
export const rounds = Array.from({ length: roundCount }, (_, index) => index + 1)
