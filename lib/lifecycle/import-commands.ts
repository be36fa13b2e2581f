import { show, suggest } from '../../models/option-checks'
import { refuseTransaction, type Parts } from './calls'
import { importKeys } from './import-keys'
import { readImportOptions, type ImportOptions } from './import-options'
import { createRuns } from './runs'

/** Creates the function that imports the keys of other systems. */
export function createImportCommands(parts: Parts) {
  const { run } = createRuns(parts)

  return {
    async importKeys(
      name: string,
      rows: Iterable<unknown> | AsyncIterable<unknown>,
      given?: ImportOptions,
    ) {
      const accepted = parts.imported?.byName.get(name)
      if (!accepted) {
        const names = [...(parts.imported?.byName.keys() ?? [])]
        throw new TypeError(
          `importKeys: there is no source ${show(name)} in the option imports.${suggest(name, names)}`,
        )
      }
      if (!isIterable(rows)) throw new TypeError('importKeys: needs rows, as a list or an iterator')
      const { wish, options } = readImportOptions(given)
      refuseTransaction(options)
      return run(options, (call) => importKeys(parts, accepted, rows, wish, call))
    },
  }
}

function isIterable(rows: unknown): boolean {
  return (
    typeof rows === 'object' &&
    rows !== null &&
    (Symbol.iterator in rows || Symbol.asyncIterator in rows)
  )
}
