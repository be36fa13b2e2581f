/** The number of times that every fault happens: once, unless `FAULTS_ROUNDS` says otherwise. */
export const roundCount = Math.max(1, Math.trunc(Number(process.env.FAULTS_ROUNDS ?? 1)))

/** The numbers of the rounds, for `describe.each`. */
export const rounds = Array.from({ length: roundCount }, (_, index) => index + 1)
