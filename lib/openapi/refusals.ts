import { STATUS_CODES } from 'node:http'

import type { JsonSchema } from '../keys/parse-input'
import { challengeOf, refusals, type ErrorCode } from '../refusals'

type Json = Record<string, unknown>

const text = { type: 'string' }
const texts = { type: 'array', items: text }
const faults = {
  type: 'array',
  items: {
    type: 'object',
    properties: { pointer: text, message: text },
    required: ['pointer', 'message'],
  },
}

/** The members of some problem documents beside those of all, with the names of the members that are always there. */
const extras: Partial<Record<ErrorCode, { properties: Json; required: readonly string[] }>> = {
  missing_permission: {
    properties: { missing: texts, anyOf: { type: 'array', items: texts } },
    required: ['missing'],
  },
  rate_limited: {
    properties: { type: text, 'violated-policies': texts },
    required: ['type', 'violated-policies'],
  },
  too_many_attempts: { properties: { type: text }, required: ['type'] },
  already_created: {
    properties: {
      apiKey: { anyOf: [{ $ref: '#/components/schemas/ApiKey' }, { type: 'null' }] },
    },
    required: ['apiKey'],
  },
  invalid_input: { properties: { errors: faults }, required: ['errors'] },
  too_many_api_keys: { properties: { errors: faults }, required: [] },
}

/** Returns the schema of the problem document of a refusal. It has no words that OpenAPI 3.0 lacks. */
export function problemSchema(code: ErrorCode): JsonSchema {
  const [status, sentence] = refusals[code]
  const { properties = {}, required = [] } = extras[code] ?? {}
  return {
    type: 'object',
    description: sentence,
    properties: {
      title: text,
      status: { type: 'integer', enum: [status] },
      detail: text,
      code: { type: 'string', enum: [code] },
      ...properties,
    },
    required: ['title', 'status', 'detail', 'code', ...required],
  }
}

/** Returns the schema of the problem document of any of some refusals. */
export function anyProblem(codes: readonly ErrorCode[]): JsonSchema {
  const properties = codes.map((code) => Object(problemSchema(code).properties) as Json)
  const { required } = problemSchema('not_signed_in')
  const status = { type: 'integer' }
  const code = { type: 'string', enum: [...codes] }
  return {
    type: 'object',
    properties: { ...Object.assign({}, ...properties), status, code },
    required,
  }
}

/** Returns the name that the schema of a refusal has in a document, for example `NotSignedInProblem`. */
export function schemaNameOf(code: ErrorCode, kind = 'Problem'): string {
  const words = code.replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())
  return `${words}${kind}`
}

/** Header fields of answers, with their descriptions. */
export const headers = {
  'Cache-Control': 'Always no-store.',
  'WWW-Authenticate': 'The challenge (RFC 6750, section 3).',
  'Retry-After': 'The seconds after which the request may be sent again.',
  'X-Should-Retry': 'It is false if the request would be refused again.',
  Allow: 'The methods that are allowed here.',
  Accept: 'The media type that bodies must have.',
  'Accept-Encoding': 'The encodings that bodies may have.',
  Location: 'The place of the new API key, relative to the path of the request.',
  'RateLimit-Policy': 'The limits of the API key.',
  RateLimit: 'The number of uses that are left, and the seconds until there are more.',
}

/** The name of a header field that is documented. */
export type HeaderName = keyof typeof headers

/** Returns the schema of a header field. */
export function headerObject(name: HeaderName): Json {
  return { description: headers[name], schema: text }
}

/** Returns the header fields of the answer to some refusals of one status. */
function headersOf(codes: readonly ErrorCode[]): HeaderName[] {
  const status = refusals[codes[0] ?? 'invalid_input'][0]
  const isChallenge = codes.some((code) => challengeOf(code) !== undefined)
  const isFinal = status === 409 && codes.some((code) => code !== 'request_under_way')
  const isLater = status === 429 || status === 503 || codes.includes('request_under_way')
  return [
    'Cache-Control',
    ...(isChallenge ? (['WWW-Authenticate'] as const) : []),
    ...(isLater ? (['Retry-After'] as const) : []),
    ...(isFinal ? (['X-Should-Retry'] as const) : []),
    ...(codes.includes('rate_limited') ? (['RateLimit-Policy', 'RateLimit'] as const) : []),
    ...(status === 405 ? (['Allow'] as const) : []),
    ...(status === 415 ? (['Accept', 'Accept-Encoding'] as const) : []),
  ]
}

interface Writing {
  /** Returns the schema of a refusal, or a reference to it. */
  schemaOf(code: ErrorCode): JsonSchema
  /** Returns a header field, or a reference to it. */
  headerOf(name: HeaderName): Json
  /** Returns further words about a refusal, which stand behind its code. */
  noteOf?(code: ErrorCode): string
  /** True if the app answers refusals in a format of its own, which is not known here. */
  isByApp: boolean
  /**
   * The media type of refusals.
   *
   * @default 'application/problem+json'
   */
  type?: string
}

/** Returns the answers to refusals by their statuses, each with the codes and sentences that it may have. */
export function refusalResponses(
  codes: readonly ErrorCode[],
  { schemaOf, headerOf, noteOf, isByApp, type = 'application/problem+json' }: Writing,
): Record<string, Json> {
  const statuses = [...new Set(codes.map((code) => refusals[code][0]))].toSorted((a, b) => a - b)
  return Object.fromEntries(
    statuses.map((status) => {
      const ofStatus = [...new Set(codes)].filter((code) => refusals[code][0] === status)
      const sentences = ofStatus.map(
        (code) => `- \`${code}\`${noteOf?.(code) ?? ''}: ${refusals[code][1]}`,
      )
      const [first, ...others] = new Set(ofStatus.map(schemaOf))
      const schema = others.length > 0 ? { oneOf: [first, ...others] } : first
      return [
        String(status),
        {
          description: [`${STATUS_CODES[status]}.`, '', ...sentences].join('\n'),
          headers: Object.fromEntries(headersOf(ofStatus).map((name) => [name, headerOf(name)])),
          ...(!isByApp && { content: { [type]: { schema } } }),
        },
      ]
    }),
  )
}
