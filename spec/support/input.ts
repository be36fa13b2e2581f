import { InvalidInputError } from '../../lib/errors'
import { createParsers } from '../../lib/keys/input'
import { permissionsOf } from './permissions'

/** The settings of an app, for the rules of its input. */
export const settings = {
  environments: { names: [], usual: undefined },
  permissions: permissionsOf(['READ_GRAPH', 'EXECUTE_GRAPH', 'READ_BLOCK', 'EXECUTE_BLOCK']),
  resources: new Map(),
  idTypes: { user: 'text' },
  maxGracePeriodSeconds: 2_592_000,
} as const

/** The parse functions of that app. */
export const parse = createParsers(settings)

/** Input that is refused, and its faults, each with a pointer and a message. */
export type Refused = [title: string, input: unknown, faults: string[]]

/** Returns the faults that a parse function finds. */
export function faultsOf(call: () => unknown): string[] {
  try {
    call()
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error
    return error.errors.map(({ pointer, message }) => `${pointer} ${message}`)
  }
  return []
}

/** Titles each row with its input. */
export function titled(rows: [input: object, fault: string][]): Refused[] {
  return rows.map(([input, fault]) => [JSON.stringify(input), input, [fault]])
}

// Sentences of faults that several fields share.
export const permissionRule = 'must be one of READ_GRAPH, EXECUTE_GRAPH, READ_BLOCK, EXECUTE_BLOCK'
export const timeRule = 'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z'
