// `import * as` would copy the 300 exports of Valibot in each file, which takes longer than to load it.
import v = require('valibot')

import { nearestTo } from '../../models/option-checks'
import { InvalidInputError, type InputFault } from '../errors'

/** A longer list of faults helps no reader: a body of 32 kB can hold thousands of them. */
const maxFaults = 100

/** The app may have set its copy of Valibot to stop at the first fault. */
const everyFault = { abortEarly: false, abortPipeEarly: false }

type ObjectSchema = v.GenericSchema & { entries: v.ObjectEntries }

/** Messages for fields, by their names. */
export type Messages = Readonly<Record<string, string>>

/**
 * Makes the function that parses an object by its schema, and throws an `InvalidInputError` that lists every fault.
 * `refused` holds the messages for some fields that the schema does not have.
 */
export function createParser<Schema extends ObjectSchema>(schema: Schema, refused?: Messages) {
  const strictSchema = strict(schema, refused)

  function parse(input: unknown) {
    const result = v.safeParse(strictSchema, input, everyFault)
    if (result.success) return result.output

    throw new InvalidInputError(result.issues.slice(0, maxFaults).map(toFault))
  }
  // The OpenAPI document is made of the schemas.
  return Object.assign(parse, { schema: strictSchema })
}

/** A JSON Schema (draft 2020-12). */
export type JsonSchema = Readonly<Record<string, unknown>>

/**
 * Documents input for which Valibot has no words, because a function of ours reads it: as JSON Schema; `false` for input that JSON cannot
 * hold, or that the app does not have.
 */
export function documentedAs<Input>(jsonSchema: JsonSchema | false) {
  return v.metadata<Input, { jsonSchema: JsonSchema | false }>({ jsonSchema })
}

/** Documents input by a schema that it resembles. */
export function documentedLike<Input>(like: v.GenericSchema) {
  return v.metadata<Input, { like: v.GenericSchema }>({ like })
}

function toFault({ path, input, message }: v.BaseIssue<unknown>): InputFault {
  return {
    pointer: pointerTo((path ?? []).map(({ key }) => key)),
    message: path && input === undefined ? 'is required' : message,
  }
}

/** Returns a JSON Pointer in its URI fragment form (RFC 6901, section 6), as in the examples of RFC 9457. */
export function pointerTo(path: readonly unknown[]): string {
  const keys = path.map((key) => {
    const escaped = String(key).replaceAll('~', '~0').replaceAll('/', '~1')
    return encodeURIComponent(escaped.toWellFormed())
  })
  return ['#', ...keys].join('/')
}

/**
 * Makes the schema of an object that has no other fields than the fields of `schema`. Valibot's `strictObject` reports only the first
 * of them, and lets a field pass that is called `constructor`. `refused` holds the messages for some of them.
 */
export function strict<Schema extends ObjectSchema>(
  schema: Schema,
  refused: Messages = {},
): v.GenericSchema<object, v.InferOutput<Schema>> {
  return v.pipe(
    v.custom<object>((value) => isObject(value) && !Array.isArray(value), 'must be a JSON object'),
    v.rawTransform<object, v.InferOutput<Schema>>(({ dataset, addIssue, NEVER }) => {
      const { issues = [], output, success } = v.safeParse(schema, dataset.value, everyFault)
      for (const { input, message, path } of issues) addIssue({ input, message, path })
      const unknown = Object.keys(dataset.value).filter(
        (name) => !Object.hasOwn(schema.entries, name),
      )
      for (const name of unknown.slice(0, maxFaults)) {
        const message = Object.hasOwn(refused, name) ? refused[name] : unknownName(name, schema)
        addIssue({ message, path: pathTo(dataset.value, name) })
      }
      return success ? output : NEVER
    }),
    documentedLike(schema),
  )
}

/** A longer name is like no name of a field. */
const longestName = 50

/** Says that there is no field of a name, and the field that was perhaps meant. */
function unknownName(name: string, { entries }: ObjectSchema): string {
  const known = Object.keys(entries).filter((each) => !isNotKnown(entries[each]))
  const nearest = name.length <= longestName ? nearestTo(name, known) : undefined
  return nearest === undefined
    ? 'is not known here'
    : `is not known here (did you mean ${nearest}?)`
}

/** Gives an object a member for each field, so that a missing field is refused by its own rule. */
export function withAll(fields: object) {
  return v.transform((value: object) =>
    Object.fromEntries(Object.keys(fields).map((name) => [name, Reflect.get(value, name)])),
  )
}

/** True for any object, which may be a list. */
export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

/** Returns the path by which an issue with an object, a list or a map belongs to one of its members. */
export function pathTo(input: unknown, key: string | number): [v.IssuePathItem] {
  return [{ type: 'unknown', origin: 'value', input, key, value: undefined }]
}

/**
 * Makes the schema of input of any type, which becomes the result of `read`. If the result is `null`, the input is
 * refused.
 */
export function readInput<Output>(read: (input: unknown) => Output | null, message: string) {
  return v.pipe(v.unknown(), readBy(read, message))
}

/** Makes the action that turns input into the result of `read`, and refuses the input if the result is `null`. */
export function readBy<Input, Output>(read: (input: Input) => Output | null, message: string) {
  return v.rawTransform<Input, Output>(({ dataset, addIssue, NEVER }) => {
    const output = read(dataset.value)
    if (output !== null) return output

    addIssue({ message })
    return NEVER
  })
}

/** The schema of a field that the app does not have. */
export const notKnown = v.pipe(
  v.custom<string>(() => false, 'is not known here'),
  documentedAs(false),
)

function isNotKnown(schema: v.ObjectEntries[string] | undefined): boolean {
  return schema !== undefined && 'wrapped' in schema && schema.wrapped === notKnown
}
