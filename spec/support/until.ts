/** Resolves once something is so that no event tells of, asking again and again. Jest limits the time. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) {
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
  }
}
