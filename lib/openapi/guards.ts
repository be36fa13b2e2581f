import { show, suggest } from '../../models/option-checks'
import type { ErrorCode } from '../errors'
import type { DocumentParts } from './document'
import { refusalsOfGuards } from './operations'
import type { GuardsOptions } from './options'
import { checkOptions } from './read-options'
import { headerObject, problemSchema, refusalResponses, schemaNameOf } from './refusals'

type Json = Record<string, unknown>

/** A Security Requirement Object: the names of schemes, each with its scopes. */
type Requirement = Readonly<Record<string, readonly string[]>>

const methods = new Set(['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace'])

/**
 * Returns a copy of an app's own OpenAPI document that says what guards answer. Operations demand an API key, and the permissions that it
 * needs, by `security`. Throws a `TypeError` if none does, or if one demands a permission that the app does not have.
 */
export function documentGuards(
  parts: DocumentParts,
  given: unknown,
  options: GuardsOptions = {},
): unknown {
  const caller = 'documentGuards'
  checkOptions(caller, options, ['scheme'])
  const { scheme = 'apiKey' } = options
  if (typeof scheme !== 'string' || !/^[\w.-]+$/.test(scheme)) {
    throw new TypeError(
      `${caller}: scheme must be the name of a security scheme, got ${show(scheme)}`,
    )
  }
  const version: unknown = Reflect.get(Object(given), 'openapi')
  if (!/^3\.[01]\.\d+$/.test(String(version))) {
    throw new TypeError(
      `${caller}: takes an OpenAPI document of version 3.0 or 3.1, got ${show(given)}`,
    )
  }

  const document = JSON.parse(JSON.stringify(given)) as Json
  const hasScopes = String(version).startsWith('3.1')
  const used = new Set<ErrorCode>()
  for (const { title, operation } of operationsOf(document)) {
    const security = (operation.security ?? document.security ?? []) as readonly Requirement[]
    const demands = security.filter((requirement) => Object.hasOwn(requirement, scheme))
    if (demands.length === 0) continue
    const permissions = demands.flatMap((demand) => demand[scheme] ?? [])
    checkPermissions(caller, title, permissions, parts)
    operation.security = writeSecurity(security, scheme, { hasScopes, parts })
    const codes = refusalsOfGuards(parts.settings, permissions)
    for (const code of codes) used.add(code)
    const responses = refusalResponses(codes, {
      schemaOf: (code) => ({ $ref: `#/components/schemas/${schemaNameOf(code)}` }),
      headerOf: headerObject,
      isByApp: parts.settings.onRefusal !== undefined,
    })
    // Answers that the app has described itself stay.
    const own = Object(operation.responses) as Record<string, Json>
    operation.responses = { ...responses, ...withRateLimits(own, parts) }
  }
  if (used.size === 0) {
    throw new TypeError(
      `${caller}: no operation has { ${scheme}: [...] } in its security. Name its permissions there: security: [{ ${scheme}: ['READ_GRAPH'] }]`,
    )
  }
  return withComponents(document, scheme, parts, [...used])
}

const rateLimitFields = ['RateLimit-Policy', 'RateLimit'] as const

/** Adds to the answers of an app to accepted requests the header fields that a guard writes if the app has limits. */
function withRateLimits(responses: Readonly<Record<string, Json>>, { settings }: DocumentParts) {
  if (Object.keys(settings.limits).length === 0) return responses
  const fields = Object.fromEntries(rateLimitFields.map((name) => [name, headerObject(name)]))
  return Object.fromEntries(
    Object.entries(responses).map(([status, response]) => [
      status,
      /^[23]/.test(status) && !('$ref' in response)
        ? { ...response, headers: { ...fields, ...Object(response.headers) } }
        : response,
    ]),
  )
}

/** Returns all operations of a document, with their titles for messages. */
function operationsOf(document: Json): { title: string; operation: Json }[] {
  return Object.entries(Object(document.paths) as Record<string, Json>).flatMap(([path, item]) =>
    Object.entries(Object(item) as Record<string, Json>)
      .filter(([method]) => methods.has(method))
      .map(([method, operation]) => ({ title: `${method.toUpperCase()} ${path}`, operation })),
  )
}

function checkPermissions(
  caller: string,
  title: string,
  permissions: readonly string[],
  { settings }: DocumentParts,
) {
  const { names } = settings.permissions
  for (const name of permissions) {
    if (names.includes(name)) continue
    throw new TypeError(
      `${caller}: ${title} demands ${show(name)}, which is not one of the app's permissions.${suggest(name, names)}`,
    )
  }
}

/**
 * Returns the security of an operation, in which a key may also come in the header of the app. In OpenAPI 3.0, only OAuth has scopes, so that
 * only the description of the 403 names permissions.
 */
function writeSecurity(
  security: readonly Requirement[],
  scheme: string,
  { hasScopes, parts }: { hasScopes: boolean; parts: DocumentParts },
): Requirement[] {
  const inHeader = `${scheme}Header`
  const isInHeader = security.some((requirement) => inHeader in requirement)
  return security.flatMap((requirement): Requirement[] => {
    const { [scheme]: scopes, ...others } = requirement
    if (scopes === undefined) return [requirement]
    const demanded = hasScopes ? scopes : []
    const bearer = { ...others, [scheme]: demanded }
    return parts.settings.header === undefined || isInHeader
      ? [bearer]
      : [bearer, { ...others, [inHeader]: demanded }]
  })
}

/** Adds the schemas of refusals, and the security schemes unless the app has described them itself. */
function withComponents(
  document: Json,
  scheme: string,
  { settings }: DocumentParts,
  codes: readonly ErrorCode[],
): Json {
  const { header, onRefusal } = settings
  const components = Object(document.components) as Json
  const schemes = {
    [scheme]: { type: 'http', scheme: 'bearer', description: 'An API key of the user.' },
    ...(header !== undefined && {
      [`${scheme}Header`]: { type: 'apiKey', in: 'header', name: header },
    }),
  }
  const problems = codes.map((code) => [schemaNameOf(code), problemSchema(code)] as const)
  return {
    ...document,
    components: {
      ...components,
      ...(!onRefusal && {
        schemas: { ...Object(components.schemas), ...Object.fromEntries(problems) },
      }),
      securitySchemes: { ...schemes, ...Object(components.securitySchemes) },
    },
  }
}
