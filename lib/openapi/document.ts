import { createOptionChecks, show } from '../../models/option-checks'
import { refusals, type ErrorCode } from '../refusals'
import type { Parsers } from '../keys/input'
import type { JsonSchema } from '../keys/parse-input'
import type { Settings } from '../read-options'
import { answerSchemas } from './answers'
import type { Operation } from './operation'
import { operations, refusalsOf, type RouterName } from './operations'
import type { DocumentOptions, OpenApiDocument, OpenApiOptions } from './options'
import { bodySchema, idempotencyKey, pathParameter, queryParameters } from './parameters'
import {
  headerObject,
  headers,
  problemSchema,
  refusalResponses,
  schemaNameOf,
  type HeaderName,
} from './refusals'

type Json = Record<string, unknown>

/** The parts of the library that documents are made of. */
export interface DocumentParts {
  settings: Pick<
    Settings,
    | 'idTypes'
    | 'limits'
    | 'resources'
    | 'environments'
    | 'permissions'
    | 'currentUser'
    | 'isAdmin'
    | 'grantable'
    | 'redis'
    | 'header'
    | 'realm'
    | 'insecureTransport'
    | 'onRefusal'
  >
  parse: Parsers
}

/** The mount path of a router, and the options of its operations. */
interface Mount {
  router: RouterName
  path: string
}

/** The start of the names of operations, and the tag, of each router. */
const naming: Record<RouterName, { start: string; tag: string; description: string }> = {
  router: { start: '', tag: 'API keys', description: 'Users manage their own API keys.' },
  organizationRouter: {
    start: 'organization',
    tag: 'API keys of an organization',
    description: 'Members manage the API keys of their organization.',
  },
  adminRouter: {
    start: 'admin',
    tag: 'API keys of all owners',
    description: 'Administrators manage the API keys of all owners.',
  },
}

const schemaRef = (name: string) => ({ $ref: `#/components/schemas/${name}` })
const headerRef = (name: string) => ({ $ref: `#/components/headers/${name}` })

/** Makes the OpenAPI document of an app's routers. Throws a `TypeError` if options break the rules. */
export function createDocument(
  parts: DocumentParts,
  options: OpenApiOptions = {},
): OpenApiDocument {
  checkOptions('openApi', options, [
    'servers',
    'router',
    'adminRouter',
    'organizationRouter',
    ...documentOptions,
  ])
  const { settings } = parts
  const {
    servers,
    router = settings.currentUser ? '/api-keys' : false,
    adminRouter = settings.currentUser && settings.isAdmin ? '/admin/api-keys' : false,
    organizationRouter = false,
    ...others
  } = options
  if (servers !== undefined && !Array.isArray(servers)) {
    throw new TypeError(`openApi: servers must be a list, got ${show(servers)}`)
  }
  if (organizationRouter !== false && settings.idTypes.organization === undefined) {
    throw new TypeError(
      'openApi: organizationRouter needs the option organizations of createApiKeys',
    )
  }
  const paths = { router, adminRouter, organizationRouter }
  const mounts = Object.entries(paths).flatMap(([name, path]): Mount[] =>
    path === false ? [] : [{ router: name as RouterName, path: checkPath(name, path) }],
  )
  return write(parts, mounts, { ...others, ...(servers && { servers }) })
}

/** Makes the OpenAPI document of one router, which is served at `url`, as seen from the document. */
export function createRouterDocument(
  parts: DocumentParts,
  router: RouterName,
  { url, ...options }: DocumentOptions & { url: string },
): OpenApiDocument {
  return write(parts, [{ router, path: '' }], { ...options, servers: [{ url }] })
}

const documentOptions = ['signIn', 'info'] as const

/** Refuses options that would have no effect. */
export function checkOptions(caller: string, options: unknown, known: readonly string[]) {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new TypeError(`${caller}: the options must be an object, got ${show(options)}`)
  }
  createOptionChecks(caller).refuseUnknownNames(options, known)
  for (const name of documentOptions) {
    const value: unknown = Reflect.get(options, name)
    if (
      value !== undefined &&
      (typeof value !== 'object' || value === null || Array.isArray(value))
    ) {
      throw new TypeError(`${caller}: ${name} must be an object, got ${show(value)}`)
    }
  }
}

/** Refuses a path that Express would not mount, or that OpenAPI writes in another way. */
function checkPath(name: string, path: unknown): string {
  const isPath = typeof path === 'string' && /^(?:\/(?:[\w\-.~]+|\{\w+\}))+$/.test(path)
  if (isPath && !path.includes('{apiKeyId}')) return path
  throw new TypeError(
    `openApi: ${name} must be a path such as /api-keys or /teams/{teamId}/api-keys, got ${show(path)}`,
  )
}

function write(
  parts: DocumentParts,
  mounts: readonly Mount[],
  { servers, signIn, info }: Pick<OpenApiOptions, 'servers' | 'signIn' | 'info'>,
): OpenApiDocument {
  const codes = Object.keys(refusals) as ErrorCode[]
  const document: OpenApiDocument = {
    openapi: '3.1.1',
    info: { title: 'API keys', version: '1', ...info },
    ...(servers && { servers: [...servers] }),
    tags: mounts.map(({ router }) => {
      const { tag: name, description } = naming[router]
      return { name, description }
    }),
    paths: Object.assign({}, ...mounts.map((mount) => writePaths(parts, mount, signIn))) as Record<
      string,
      Json
    >,
    components: {
      schemas: {
        ...answerSchemas(parts.settings),
        Problem: anyProblem(codes),
        ...Object.fromEntries(codes.map((code) => [schemaNameOf(code), problemSchema(code)])),
      },
      headers: Object.fromEntries(
        (Object.keys(headers) as HeaderName[]).map((name) => [name, headerObject(name)]),
      ),
      ...(signIn && { securitySchemes: { signIn } }),
    },
  }
  return withoutUnused(document)
}

/** The schema of a problem document of any refusal. */
function anyProblem(codes: readonly ErrorCode[]): JsonSchema {
  const properties = codes.map((code) => Object(problemSchema(code).properties) as Json)
  const { required } = problemSchema('not_signed_in')
  const status = { type: 'integer' }
  const code = { type: 'string', enum: codes }
  return {
    type: 'object',
    properties: { ...Object.assign({}, ...properties), status, code },
    required,
  }
}

function writePaths(parts: DocumentParts, { router, path: mount }: Mount, signIn: unknown): Json {
  const paths: Record<string, Json> = {}
  for (const operation of operations[router]) {
    const path = operation.path === '/' && mount !== '' ? mount : mount + operation.path
    const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)
    const item = (paths[path] ??= names.length > 0 ? { parameters: names.map(pathParameter) } : {})
    item[operation.method] = {
      ...writeOperation(parts, router, operation),
      ...(Boolean(signIn) && { security: [{ signIn: [] }] }),
    }
  }
  return paths
}

function writeOperation(
  { settings, parse }: DocumentParts,
  router: RouterName,
  operation: Operation,
): Json {
  const { name, summary, query, body, isBodyOptional, isOnce, answer, status, hasLocation } =
    operation
  const { start, tag } = naming[router]
  const parameters = [
    ...(query ? queryParameters(parse, query) : []),
    ...(isOnce ? [idempotencyKey] : []),
  ]
  const fields: HeaderName[] = ['Cache-Control', ...(hasLocation ? (['Location'] as const) : [])]

  return {
    operationId: start === '' ? name : start + name.slice(0, 1).toUpperCase() + name.slice(1),
    summary,
    tags: [tag],
    ...(parameters.length > 0 && { parameters }),
    ...(body && {
      requestBody: {
        required: isBodyOptional !== true,
        content: { 'application/json': { schema: bodySchema(parse, router, body) } },
      },
    }),
    responses: {
      [status ?? 200]: {
        description: summary.endsWith('.') ? summary : `${summary}.`,
        headers: Object.fromEntries(fields.map((field) => [field, headerRef(field)])),
        content: { 'application/json': { schema: schemaRef(answer) } },
      },
      ...refusalResponses(
        refusalsOf(router, operation).filter(
          (code) =>
            (code !== 'grantable_unavailable' || settings.grantable) &&
            (code !== 'insecure_transport' || settings.insecureTransport !== 'allow'),
        ),
        {
          schemaOf: (code) => schemaRef(schemaNameOf(code)),
          headerOf: headerRef,
          isByApp: settings.onRefusal !== undefined,
        },
      ),
    },
  }
}

/** Leaves out the components to which nothing refers. */
function withoutUnused(document: OpenApiDocument): OpenApiDocument {
  const text = JSON.stringify(document)
  let isSmaller = false
  const components = Object.fromEntries(
    Object.entries(document.components).map(([kind, members]): [string, Json] => {
      if (kind === 'securitySchemes') return [kind, members]
      const used = Object.entries(members).filter(([name]) =>
        text.includes(`"#/components/${kind}/${name}"`),
      )
      isSmaller ||= used.length < Object.keys(members).length
      return [kind, Object.fromEntries(used)]
    }),
  )
  const smaller = { ...document, components }
  return isSmaller ? withoutUnused(smaller) : smaller
}
