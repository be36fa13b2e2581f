import type { InputFault } from '../errors'
import type { UnmappedField } from './source'

/** The result of an import, or of its dry run. */
export interface ImportReport {
  /** The number of keys that are new. */
  imported: number
  /** The number of keys that were imported before and have not changed. */
  known: number
  /** The number of keys that were imported before and were suspended, revoked or shortened since. */
  changed: number
  /** The rows that were not imported, by their places from 0, and why. */
  refused: { row: number; errors: InputFault[] }[]
  /** Values of rows for which the library has no place: the number of the rows, and the place of the first. */
  unmapped: (UnmappedField & { rows: number; firstRow: number })[]
}

/** Begins a report. */
export function createReport() {
  const report: ImportReport = { imported: 0, known: 0, changed: 0, refused: [], unmapped: [] }
  const fields = new Map<string, ImportReport['unmapped'][number]>()

  return {
    report,

    refuse(row: number, errors: InputFault[]) {
      report.refused.push({ row, errors })
    },

    noteUnmapped(row: number, unmapped: readonly UnmappedField[]) {
      for (const { field, message } of unmapped) {
        const name = `${field} ${message}`
        const known = fields.get(name)
        if (known) known.rows++
        // Messages may have values of rows: a longer list helps no reader.
        else if (fields.size < maxFields) {
          const entry = { field, message, rows: 1, firstRow: row }
          fields.set(name, entry)
          report.unmapped.push(entry)
        }
      }
    },
  }
}

const maxFields = 1_000
