import { mostKeys } from '../keys/fields'
import type { Parsers } from '../keys/input'
import type { JsonSchema } from '../keys/parse-input'
import { toJsonSchema } from './json-schema'
import type { RouterName } from './operations'

type Json = Record<string, unknown>

/** Returns the parameter of a path. */
export function pathParameter(name: string): Json {
  const schema = name === 'apiKeyId' ? { type: 'string', format: 'uuid' } : { type: 'string' }
  return { name, in: 'path', required: true, schema }
}

/** The header field that names a request. */
export const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  description:
    'Names the request, so that it is carried out once in 24 hours: 1 to 255 printable ASCII characters in quotes.',
  schema: { type: 'string', minLength: 1 },
}

/** Returns the schema of a parser. */
function schemaOf(parse: Parsers, name: keyof Parsers) {
  const { schema } = parse[name] as Parsers['nothing']
  return schema
}

/** Returns the schema of a body. Owners may not write limits. The keys of a batch are parsed one by one. */
export function bodySchema(parse: Parsers, router: RouterName, name: keyof Parsers): JsonSchema {
  if (name === 'batch') {
    const apiKeys = {
      type: 'array',
      items: toJsonSchema(schemaOf(parse, 'newKeyOf')),
      maxItems: mostKeys,
    }
    return {
      type: 'object',
      properties: { apiKeys },
      required: ['apiKeys'],
      additionalProperties: false,
    }
  }
  const schema = toJsonSchema(schemaOf(parse, name)) as Json
  if (router === 'adminRouter') return schema
  const { limits: _, ...properties } = Object(schema.properties) as Json
  return { ...schema, properties }
}

/** Returns the parameters of a query. It names an owner by `ownerType` and `ownerId`, or by `userId`. */
export function queryParameters(parse: Parsers, query: keyof Parsers): Json[] {
  const { properties, required = [] } = toJsonSchema(schemaOf(parse, query)) as unknown as {
    properties: Record<string, JsonSchema>
    required?: string[]
  }
  const { owner, ...own } = properties
  const ofOwner = owner && {
    ownerType: { type: 'string', enum: kindsOf(owner) },
    ownerId: { type: 'string' },
  }
  return Object.entries({ ...own, ...ofOwner }).map(([name, schema]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    schema,
  }))
}

/** Returns the types of owners that the schema of an owner names. */
function kindsOf({ anyOf }: JsonSchema): unknown[] {
  return (anyOf as { properties: { type: { const: unknown } } }[]).map(
    ({ properties }) => properties.type.const,
  )
}
