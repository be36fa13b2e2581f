import { refusals, type ErrorCode } from '../refusals'
import type { Parsers } from '../keys/input'
import type { Settings } from '../read-options'
import { answerSchemas } from './answers'
import type { Operation } from './operation'
import { operations, refusalsOf, type RouterName } from './operations'
import type { DocumentOptions, OpenApiDocument, OpenApiOptions } from './options'
import { readOptions, type Mount } from './read-options'
import { bodySchema, idempotencyKey, pathParameter, queryParameters } from './parameters'
import {
  anyProblem,
  headerObject,
  headers,
  problemSchema,
  refusalResponses,
  schemaNameOf,
  type HeaderName,
} from './refusals'
import { withTokens } from './token-operations'

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
  const { mounts, tokens, others } = readOptions(parts.settings, options)
  const document = write(parts, mounts, others)
  return tokens ? withTokens(document, parts, tokens) : document
}

/** Makes the OpenAPI document of one router, which is served at `url`, as seen from the document. */
export function createRouterDocument(
  parts: DocumentParts,
  router: RouterName,
  { url, ...options }: DocumentOptions & { url: string },
): OpenApiDocument {
  return write(parts, [{ router, path: '' }], { ...options, servers: [{ url }] })
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
