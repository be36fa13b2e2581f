import type { IncomingMessage } from 'node:http'

import { createOptionChecks, show } from '../../models/option-checks'
import { ApiKeysError, refusalOf } from '../errors'
import { authInfoOf, type McpAuthInfo } from '../http/auth-info'
import type { RequestOptions } from '../http/guard-options'
import type { AnyApp, App, EnvironmentOption } from '../keys/app'
import { ellipsis, type SecretFormat } from '../keys/secret'
import type { Settings } from '../read-options'
import type { VerifiedApiKey } from '../verification/verified-key'
import type { Verdict, VerifyOptions } from '../verification/verify'
import { readMcpErrors, type McpErrors } from './mcp-errors'

/** The options of `mcpVerifier`. */
export type McpVerifierOptions<A extends App = AnyApp> = McpVerifierBasics &
  EnvironmentOption<A['environment']>

interface McpVerifierBasics {
  /**
   * The errors of the SDK, `@modelcontextprotocol/sdk/server/auth/errors.js`, by which it knows its answers.
   *
   * @default those of the SDK that stands beside this library, if it does
   */
  errors?: McpErrors | undefined
  /**
   * The request that the key came with. The key is then judged as a guard does: with its addresses, its limits and its `signal`, behind
   * `maskKeys` as well. Make a verifier for each request.
   */
  req?: IncomingMessage | undefined
}

/** An `OAuthTokenVerifier` of `@modelcontextprotocol/sdk`, whose tokens are keys. */
export interface McpVerifier<A extends App = AnyApp> {
  /** Resolves to the caller who came with a key. Rejects with the error of the SDK if the key may not be used. */
  verifyAccessToken(token: string): Promise<McpAuthInfo<A>>
}

export interface McpParts {
  settings: Pick<Settings, 'environments'>
  format: Pick<SecretFormat, 'markers'>
  verify(plainTextKey: string, options: VerifyOptions<string>): Promise<Verdict>
  authenticateRequest(
    req: IncomingMessage,
    options: RequestOptions<string, string>,
  ): Promise<VerifiedApiKey>
  consume(apiKey: VerifiedApiKey): Promise<unknown>
}

const { refuseUnknownNames } = createOptionChecks('mcpVerifier')

/** Makes the verifier of keys for `requireBearerAuth` of the SDK. */
export function createMcpVerifier(parts: McpParts, given: unknown): McpVerifier {
  const { verify, authenticateRequest, consume } = parts
  const { loadErrors, req, ...options } = readOptions(parts, given)

  /** Judges a key by itself. Its limits count as with a guard. */
  async function judge(token: string): Promise<VerifiedApiKey> {
    if (isMasked(token, parts.format)) {
      const { InvalidTokenError } = await loadErrors()
      throw new InvalidTokenError(masked)
    }
    const verdict = await verify(token, options)
    if (!verdict.valid) throw refusalOf(verdict.code, verdict.retryAfterSeconds)
    await consume(verdict.apiKey)
    return verdict.apiKey
  }

  return {
    async verifyAccessToken(token) {
      try {
        const apiKey = await (req ? authenticateRequest(req, options) : judge(token))
        return authInfoOf(apiKey)
      } catch (error) {
        throw error instanceof ApiKeysError ? toErrorOfSdk(error, await loadErrors()) : error
      }
    },
  }
}

/** Checks the options of a verifier, and returns them. */
function readOptions({ settings }: McpParts, given: unknown = {}) {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new TypeError(`mcpVerifier: the options must be an object, got ${show(given)}`)
  }
  refuseUnknownNames(given, ['errors', 'req', 'environment'])
  const { errors, req, environment } = given as McpVerifierOptions & { environment?: string }
  const loadErrors = readMcpErrors(errors)
  if (req !== undefined && typeof Object(req).headers !== 'object') {
    throw new TypeError(`mcpVerifier: req must be a request, got ${show(req)}`)
  }
  settings.environments.acceptedBy('mcpVerifier', environment)
  return { loadErrors, req, ...(environment !== undefined && { environment }) }
}

const masked =
  'A middleware has masked the API key before. Give its request to mcpVerifier as req, or guard the route by authenticate with the option mcp.'

/** True if a text is a key of which a middleware of the library has left only what lists show. */
function isMasked(token: unknown, { markers }: Pick<SecretFormat, 'markers'>): boolean {
  if (typeof token !== 'string' || !token.endsWith(ellipsis)) return false
  return markers.some((marker) => token.startsWith(marker))
}

/** Returns the error by which the SDK knows its answer. If it cannot be known whether a key is good, the SDK answers 500. */
function toErrorOfSdk(error: ApiKeysError, errors: McpErrors): Error {
  const { status, message, headers } = error
  if (status === 429) {
    const seconds = headers['Retry-After'] ?? '1'
    return new errors.TooManyRequestsError(`Too many requests. Try again in ${seconds} s.`)
  }
  return status < 500 ? new errors.InvalidTokenError(message) : error
}
