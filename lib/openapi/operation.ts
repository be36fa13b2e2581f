import type { ErrorCode } from '../errors'
import type { Parsers } from '../keys/input'
import type { AnswerName } from './answers'

export type Method = 'get' | 'post' | 'put' | 'patch' | 'delete'

type ParserName = keyof Parsers

/** A route as the document describes it. */
export interface Operation {
  method: Method
  /** The path below the mount of the router. */
  path: string
  /** A verb and its object, in camel case. */
  name: string
  summary: string
  /** The parser of the query; without it, the route reads no query. */
  query?: ParserName
  /** The parser of the body; without it, the route takes no body. */
  body?: ParserName
  /** True if the body may be left out. */
  isBodyOptional?: true
  answer: AnswerName
  /** The status of the answer; 200 unless it says so. */
  status?: 201
  /** True if the answer says where a new key is. */
  hasLocation?: true
  /** True if the route takes an `Idempotency-Key`. */
  isOnce?: true
  /** The refusals beside those that all routes of its kind have. */
  refusals?: readonly ErrorCode[]
}

/** The refusals of the app's policies for new permissions and secrets. */
export const policies = ['exceeds_access', 'grantable_unavailable'] as const

/** The creation of a key, but for its body. */
export const creation = {
  method: 'post',
  path: '/',
  name: 'createApiKey',
  summary: 'Creates an API key; only this answer has its plain text',
  answer: 'NewSecret',
  status: 201,
  hasLocation: true,
  isOnce: true,
  refusals: ['owner_suspended', 'too_many_api_keys', ...policies],
} as const

/** The list of permissions, but for its query. */
export const permissions = {
  method: 'get',
  path: '/permissions',
  name: 'listPermissions',
  answer: 'PermissionList',
  refusals: ['grantable_unavailable'],
} as const
