import Ajv2020 from 'ajv/dist/2020'
import addFormats from 'ajv-formats'

import type { OpenApiDocument } from '../../lib'

/** JSON whose members a spec reads. An assertion about a member that is missing fails. */
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyJson = Record<string, any>

type Json = Record<string, unknown>

/** An answer of an app, as far as documents describe it. */
export interface DocumentedAnswer {
  status: number
  headers: Record<string, string>
  text?: string | undefined
}

/** The header fields of the library. Those of Node and of the app do not count. */
const fields = [
  'cache-control',
  'www-authenticate',
  'retry-after',
  'location',
  'allow',
  'accept',
  'accept-encoding',
  'x-should-retry',
]

/** A document by which answers are checked. */
export type Contract = ReturnType<typeof createContract>

/** Makes the checks of requests and answers by a document. An answer has no members that the document does not name. */
export function createContract(document: OpenApiDocument) {
  const { components } = closed(structuredClone(document)) as OpenApiDocument
  const paths = closed(structuredClone(document.paths)) as Record<string, Json>
  const ajv = new Ajv2020({ allErrors: true, allowUnionTypes: true })
  addFormats(ajv)
  ajv.addKeyword('components')
  const validators = new WeakMap<object, ReturnType<typeof ajv.compile>>()

  function faultsOf(schema: object, value: unknown): string[] {
    let validate = validators.get(schema)
    if (!validate) {
      validate = ajv.compile({ ...schema, components })
      validators.set(schema, validate)
    }
    if (validate(value)) return []
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
    )
  }

  /** A path without parameters goes before others. */
  const known = Object.keys(paths).toSorted((one, other) => rank(one) - rank(other))

  function templateOf(path: string): string | undefined {
    const [bare = ''] = path.split('?')
    return known.find((template) => patternOf(template).test(bare))
  }

  /** Returns the operation of a request; undefined if the document has none. */
  function operationOf(method: string, path: string): Json | undefined {
    const item = paths[templateOf(path) ?? '']
    return item?.[method === 'head' ? 'get' : method] as Json | undefined
  }

  return {
    paths,

    /** True if the document has the path of a request. */
    hasPath: (path: string) => templateOf(path) !== undefined,

    /** Returns the faults of the answer to a request by the document. */
    faultsOfAnswer(method: string, path: string, answer: DocumentedAnswer): string[] {
      const operation = operationOf(method, path)
      if (!operation) return [`${method} ${path} is not documented`]
      const { status, headers, text } = answer
      const place = `${method} ${path} ${status}`
      const shown = (text ?? '').slice(0, 500)
      const response = (operation.responses as Record<string, Json>)[status]
      if (!response) return [`${place} is not documented: ${shown}`]

      const documented = new Set(
        Object.keys(Object(response.headers)).map((name) => name.toLowerCase()),
      )
      const unknown = fields.filter((name) => name in headers && !documented.has(name))
      const faults = unknown.map(
        (name) => `${place} has the header ${name}, which is not documented`,
      )
      if (method === 'head') return faults
      if (response.content === undefined && !text) return faults
      const [type = ''] = (headers['content-type'] ?? '').split(';')
      const content = (response.content as Record<string, Json> | undefined)?.[type]
      if (!content) return [...faults, `${place} is of the type ${type}, which is not documented`]
      const wrong = faultsOf(content.schema as object, JSON.parse(text ?? ''))
      return [...faults, ...wrong.map((fault) => `${place}: ${fault}: ${shown}`)]
    },

    /** Returns the faults of the body of a request by the document. */
    faultsOfBody(method: string, path: string, body: unknown): string[] {
      const { requestBody } = operationOf(method, path) ?? {}
      if (!requestBody) return body === undefined ? [] : [`${method} ${path} takes no body`]
      const { required, content } = requestBody as {
        required: boolean
        content: Record<string, Json>
      }
      if (body === undefined) return required ? [`${method} ${path} needs a body`] : []
      return faultsOf(content['application/json']?.schema as object, body)
    },
  }
}

/**
 * Makes the check of all answers of routers. It passes over answers of the app: errors of its own, paths without a route, and refusals in a
 * format of its own.
 */
export function checkAnswers(makeDocument: () => OpenApiDocument) {
  let contract: Contract | undefined

  return function check(method: string, path: string, answer: DocumentedAnswer) {
    contract ??= createContract(makeDocument())
    const isByApp = answer.text?.startsWith('{"app":') ?? false
    // OPTIONS and the refusal of other methods are not about one operation.
    if (isByApp || !contract.hasPath(path) || method === 'options' || answer.status === 405) return
    const faults = contract.faultsOfAnswer(method, path, answer)
    if (faults.length > 0) throw new Error(faults.join('\n'))
  }
}

function rank(template: string): number {
  return template.split('{').length
}

function patternOf(template: string): RegExp {
  const source = template.replaceAll(/[.]/g, '\\.').replaceAll(/\{\w+\}/g, '[^/]+')
  return new RegExp(`^${source}/?$`)
}

/** Closes every object of answers that names its members, so that a new member needs a place in the document. */
function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed)
  if (typeof value !== 'object' || value === null) return value
  const json = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, closed(each)]))
  const isOpen = json.properties !== undefined && json.type === 'object'
  return isOpen ? { additionalProperties: false, ...json } : json
}
