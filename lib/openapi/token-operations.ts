import type { ErrorCode } from '../errors'
import type { JsonSchema } from '../keys/parse-input'
import { oauthErrorOf, type OAuthError } from '../refusals'
import { answerSchemas } from './answers'
import type { DocumentParts } from './document'
import { refusalsOfGuards } from './operations'
import type { OpenApiDocument } from './options'
import type { TokenMount } from './read-options'
import { headerObject, problemSchema, refusalResponses, schemaNameOf } from './refusals'

type Json = Record<string, unknown>

const text = { type: 'string' }
const seconds = { type: 'integer' }
const tag = 'Token endpoints'

/** The refusals of both routes. */
const ofAll: readonly ErrorCode[] = ['malformed_token_request', 'body_too_large']

/** Adds the token endpoints of OAuth to a document. They take forms, and their refusals have the members that OAuth clients read. */
export function withTokens(
  document: OpenApiDocument,
  parts: DocumentParts,
  { path, introspect, revoke }: TokenMount,
): OpenApiDocument {
  const { settings } = parts
  const { schemas, securitySchemes, ...components } = document.components
  const ofIntrospection = refusalsOfIntrospection(parts)
  const ofRevocation = refusalsOfRevocation(parts)
  const codes = [...(introspect ? ofIntrospection : []), ...(revoke ? ofRevocation : [])]

  return {
    ...document,
    tags: [
      ...(document.tags as Json[]),
      { name: tag, description: 'Servers introspect API keys, and clients revoke them.' },
    ],
    paths: {
      ...document.paths,
      ...(introspect && {
        [`${path}/introspect`]: { post: introspection(parts, ofIntrospection) },
      }),
      ...(revoke && { [`${path}/revoke`]: { post: revocation(parts, ofRevocation) } }),
    },
    components: {
      ...components,
      schemas: {
        ...schemas,
        ...(introspect && {
          Owner: answerSchemas(settings).Owner,
          Introspection: introspectionSchema(parts),
        }),
        ...(!settings.onRefusal && errorSchemas(codes)),
      },
      ...((securitySchemes || introspect) && {
        securitySchemes: { ...securitySchemes, ...(introspect && schemesOf(parts)) },
      }),
    },
  }
}

function introspection(parts: DocumentParts, codes: readonly ErrorCode[]): Json {
  const description =
    'The address from which the key came, for a key that only some addresses may use.'
  const security = Object.keys(schemesOf(parts)).map((name) => ({ [name]: [] }))
  return {
    operationId: 'introspectToken',
    summary: 'Says what an API key may do (RFC 7662)',
    tags: [tag],
    security,
    requestBody: formOf({ ip: { ...text, description } }),
    responses: {
      200: {
        description: 'What the API key may do, or that it may not be used.',
        headers: { 'Cache-Control': { description: 'How long the answer holds.', schema: text } },
        content: {
          'application/json': { schema: { $ref: '#/components/schemas/Introspection' } },
        },
      },
      ...responsesTo(parts, codes),
    },
  }
}

function revocation(parts: DocumentParts, codes: readonly ErrorCode[]): Json {
  return {
    operationId: 'revokeToken',
    summary: 'Revokes an API key for ever, by its plain text (RFC 7009)',
    tags: [tag],
    security: [],
    requestBody: formOf({}),
    responses: {
      200: {
        description: 'The API key is revoked, or there is none.',
        headers: { 'Cache-Control': headerObject('Cache-Control') },
      },
      ...responsesTo(parts, codes),
    },
  }
}

function formOf(parameters: Json): Json {
  const token = { ...text, description: 'The plain-text API key.' }
  const schema = {
    type: 'object',
    properties: { token, token_type_hint: text, ...parameters },
    required: ['token'],
  }
  return { required: true, content: { 'application/x-www-form-urlencoded': { schema } } }
}

function responsesTo({ settings }: DocumentParts, codes: readonly ErrorCode[]) {
  return refusalResponses(codes, {
    schemaOf: (code) => ({ $ref: `#/components/schemas/${errorNameOf(code)}` }),
    noteOf: (code) => `, \`error\` \`${errorsOf(code).join('` or `')}\``,
    headerOf: headerObject,
    isByApp: settings.onRefusal !== undefined,
    type: 'application/json',
  })
}

function refusalsOfIntrospection({ settings }: DocumentParts): ErrorCode[] {
  // The app names the permission that a caller needs. The router is about no resource.
  const ofGuard = refusalsOfGuards(settings, ['any'])
  return [...ofGuard, ...ofAll, 'cross_site_request']
}

function refusalsOfRevocation({ settings }: DocumentParts): ErrorCode[] {
  return [
    ...(settings.insecureTransport === 'allow' ? [] : (['insecure_transport'] as const)),
    ...ofAll,
    'database_unavailable',
    'too_many_lookups',
  ]
}

/** Returns the ways in which a caller of the introspection sends its own key. */
function schemesOf({ settings: { header } }: DocumentParts): Json {
  return {
    apiKey: { type: 'http', scheme: 'bearer', description: 'An API key.' },
    ...(header !== undefined && { apiKeyHeader: { type: 'apiKey', in: 'header', name: header } }),
    clientSecret: {
      type: 'http',
      scheme: 'basic',
      description: 'An API key as the secret of a client, with any id (client_secret_basic).',
    },
  }
}

function introspectionSchema({ settings }: DocumentParts): JsonSchema {
  const { environments, resources } = settings
  const always = {
    active: { const: true },
    client_id: { ...text, format: 'uuid' },
    token_type: { const: 'Bearer' },
    iat: seconds,
    sub: text,
    jti: { ...text, format: 'uuid' },
    owner: { $ref: '#/components/schemas/Owner' },
    ...(environments.names.length > 0 && { environment: text }),
  }
  const bindings = { type: 'object', additionalProperties: { type: 'array', items: text } }
  const active = {
    type: 'object',
    properties: {
      ...always,
      scope: text,
      exp: seconds,
      ...(resources.size > 0 && { resources: bindings }),
    },
    required: Object.keys(always),
  }
  const inactive = {
    type: 'object',
    properties: { active: { const: false } },
    required: ['active'],
  }
  return { oneOf: [active, inactive] }
}

/** Returns the name that the schema of a refusal of these routes has, for example `InvalidApiKeyTokenError`. */
function errorNameOf(code: ErrorCode): string {
  return schemaNameOf(code, 'TokenError')
}

/** Returns the error codes of OAuth that a refusal may have, depending on how the client authenticates. */
function errorsOf(code: ErrorCode): OAuthError[] {
  return [...new Set([oauthErrorOf(code, 'Bearer'), oauthErrorOf(code, 'Basic')])]
}

/** Returns the schemas of refusals: the members of OAuth (RFC 6749, section 5.2) and those of a problem document. */
function errorSchemas(codes: readonly ErrorCode[]): Record<string, JsonSchema> {
  return Object.fromEntries(
    codes.map((code) => {
      const problem = problemSchema(code)
      const error = { ...text, enum: errorsOf(code) }
      const properties = { error, error_description: text, ...Object(problem.properties) }
      const required = ['error', 'error_description', ...(problem.required as string[])]
      return [errorNameOf(code), { ...problem, properties, required }]
    }),
  )
}
