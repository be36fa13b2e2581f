import { isJsonObject, isWithin, type Json, type JsonObject } from './json'

/** One step of a graph: what it does, and how it is set up. */
export interface Block {
  id: string
  kind: string
  settings: JsonObject
}

/** An execution that cannot go on, for a reason that helps whoever asked for it. */
export class ExecutionError extends Error {
  override name = 'ExecutionError'
}

type Kind = (inputs: Values, settings: Values) => Json

/** What blocks can do. Each kind is a pure function of its inputs and settings. */
const kinds: ReadonlyMap<string, Kind> = new Map<string, Kind>([
  [
    'text.template',
    (inputs, settings) =>
      settings
        .text('template')
        .replaceAll(/\{\{\s*(\w+)\s*\}\}/g, (_, name: string) => inputs.textOrNumber(name)),
  ],
  ['text.uppercase', (inputs) => inputs.text('text').toUpperCase()],
  ['text.join', (inputs, settings) => inputs.texts('texts').join(settings.text('separator'))],
  ['math.add', (inputs) => inputs.number('a') + inputs.number('b')],
  ['math.multiply', (inputs) => inputs.number('a') * inputs.number('b')],
  ['json.parse', (inputs) => parseJson(inputs.text('text'))],
  ['json.get', (inputs, settings) => getAt(inputs.any('value'), settings.texts('path'))],
  ['logic.choose', (inputs) => inputs.any(inputs.boolean('condition') ? 'yes' : 'no')],
])

/** So that a chain of blocks cannot grow a small input into one that fills the memory. */
const LIMITS = { depth: 100, size: 100_000 }

/**
 * Computes what a block makes of its inputs.
 *
 * @throws {ExecutionError} for an unknown kind, and for inputs that are missing or of a wrong type
 */
export function runBlock(block: Block, inputs: JsonObject): Json {
  const run = kinds.get(block.kind)
  if (!run) throw new ExecutionError(`There are no blocks of the kind "${block.kind}"`)
  for (const [name, value] of Object.entries(inputs)) checkSize(`The input "${name}"`, value)

  const output = run(valuesOf('input', inputs), valuesOf('setting', block.settings))
  checkSize('The output', output)
  return output
}

function checkSize(what: string, value: Json): void {
  if (!isWithin(LIMITS, value)) throw new ExecutionError(`${what} is too large or too deep`)
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw new ExecutionError(`${what} is not a finite number`)
  }
}

type Values = ReturnType<typeof valuesOf>

/** Reads named values by type. A value of another type, or none, ends the execution. */
function valuesOf(what: 'input' | 'setting', values: JsonObject) {
  function any(name: string): Json {
    // Its own, so that `constructor` and `__proto__` are names like any other.
    const value = Object.hasOwn(values, name) ? values[name] : undefined
    if (value === undefined) throw new ExecutionError(`The ${what} "${name}" is missing`)
    return value
  }

  function wrongType(name: string, wanted: string): ExecutionError {
    return new ExecutionError(`The ${what} "${name}" must be ${wanted}`)
  }

  return {
    any,

    text(name: string): string {
      const value = any(name)
      if (typeof value !== 'string') throw wrongType(name, 'a text')
      return value
    },

    texts(name: string): string[] {
      const value = any(name)
      if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
        throw wrongType(name, 'a list of texts')
      }
      return value
    },

    number(name: string): number {
      const value = any(name)
      if (typeof value !== 'number') throw wrongType(name, 'a number')
      return value
    },

    boolean(name: string): boolean {
      const value = any(name)
      if (typeof value !== 'boolean') throw wrongType(name, 'true or false')
      return value
    },

    textOrNumber(name: string): string {
      const value = any(name)
      if (typeof value !== 'string' && typeof value !== 'number') {
        throw wrongType(name, 'a text or a number')
      }
      return String(value)
    },
  }
}

function parseJson(text: string): Json {
  try {
    return JSON.parse(text) as Json
  } catch {
    throw new ExecutionError('The input "text" is not JSON')
  }
}

function getAt(value: Json, path: string[]): Json {
  let found: Json | undefined = value
  for (const name of path) {
    if (Array.isArray(found)) found = /^\d+$/.test(name) ? found[Number(name)] : undefined
    else found = isJsonObject(found) && Object.hasOwn(found, name) ? found[name] : undefined

    if (found === undefined) throw new ExecutionError(`There is nothing at "${path.join('.')}"`)
  }

  return found
}
