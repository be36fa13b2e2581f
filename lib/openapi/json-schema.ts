import v = require('valibot')

import type { JsonSchema } from '../keys/parse-input'

type Json = Record<string, unknown>

/** The parts of a schema of Valibot that are read here. The types of Valibot tell them by the schema. */
interface Readable {
  type: string
  pipe?: readonly Step[]
  wrapped?: v.GenericSchema
  default?: unknown
  item?: v.GenericSchema
  value?: v.GenericSchema
  options?: readonly unknown[]
  literal?: unknown
  entries?: Record<string, v.GenericSchema>
}

/** A step of a pipe: a schema, a check, a transformation or metadata. */
interface Step {
  kind: string
  type: string
  requirement?: unknown
  metadata?: { jsonSchema?: JsonSchema | false; like?: v.GenericSchema }
}

/**
 * Returns the JSON Schema of the input that a schema of Valibot takes; `false` for input that JSON cannot hold, or that the app does not
 * have. It describes the form that clients should send: some input is accepted in other forms as well, for example a number as text.
 */
export function toJsonSchema(schema: v.GenericSchema): JsonSchema | false {
  const { type, pipe, ...rest } = schema as unknown as Readable
  if (pipe) return ofPipe(pipe)

  switch (type) {
    case 'string':
    case 'boolean':
      return { type }
    // Steps behind it say more.
    case 'unknown':
    case 'custom':
    case 'map':
      return {}
    case 'literal':
      return { const: rest.literal }
    case 'picklist':
      return { type: 'string', enum: rest.options }
    case 'array':
      return { type: 'array', items: toJsonSchema(rest.item as v.GenericSchema) }
    case 'record':
      return {
        type: 'object',
        additionalProperties: toJsonSchema(rest.value as v.GenericSchema),
      }
    case 'union':
      return { anyOf: (rest.options as v.GenericSchema[]).map(toJsonSchema) }
    case 'nullable':
      return nullable(toJsonSchema(rest.wrapped as v.GenericSchema))
    case 'optional':
      return withDefault(toJsonSchema(rest.wrapped as v.GenericSchema), rest.default)
    case 'object':
      return ofObject(rest.entries ?? {})
    default:
      throw new TypeError(`toJsonSchema: cannot document a schema of the type ${type}`)
  }
}

/** Later steps say more than earlier steps. */
function ofPipe(steps: readonly Step[]): JsonSchema | false {
  if (steps.some(({ metadata }) => metadata?.jsonSchema === false)) return false
  return Object.assign({}, ...steps.map(ofStep)) as JsonSchema
}

function ofStep(step: Step): Json {
  const { kind, type, requirement, metadata } = step
  if (kind === 'schema') return { ...toJsonSchema(step as unknown as v.GenericSchema) }
  if (metadata?.like) return { ...toJsonSchema(metadata.like) }
  if (metadata?.jsonSchema) return metadata.jsonSchema
  if (type === 'non_empty') return { minItems: 1 }
  if (type === 'min_length') return { minItems: requirement }
  return type === 'max_length' ? { maxItems: requirement } : {}
}

function ofObject(entries: Record<string, v.GenericSchema>): JsonSchema {
  const members = Object.entries(entries)
    .map(([name, entry]) => [name, entry, documented(name, entry)] as const)
    .filter(([, , json]) => json !== false)
  const required = members.filter(([, { type }]) => type !== 'optional').map(([name]) => name)
  return {
    type: 'object',
    properties: Object.fromEntries(members.map(([name, , json]) => [name, json])),
    ...(required.length > 0 && { required }),
    additionalProperties: false,
  }
}

/** Throws a `TypeError` for a field that a function of ours reads, and that nothing documents. */
function documented(name: string, entry: v.GenericSchema): JsonSchema | false {
  const json = toJsonSchema(entry)
  if (json === false || Object.keys(json).length > 0) return json
  throw new TypeError(`toJsonSchema: nothing documents ${name}`)
}

/** Returns the schema of input that may be `null` as well. */
export function nullable(json: JsonSchema | false): JsonSchema | false {
  if (json === false) return false
  const isPlain = typeof json.type === 'string' && json.enum === undefined
  return isPlain ? { ...json, type: [json.type, 'null'] } : { anyOf: [json, { type: 'null' }] }
}

function withDefault(json: JsonSchema | false, value: unknown): JsonSchema | false {
  return json === false || value === undefined ? json : { ...json, default: value }
}
