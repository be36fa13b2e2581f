import { createOptionChecks, show } from '../../models/option-checks'
import type { Settings } from '../read-options'
import type { RouterName } from './operations'
import type { OpenApiOptions, TokenRoutes } from './options'

/** The path at which an app mounts a router. */
export interface Mount {
  router: RouterName
  path: string
}

/** The path at which an app mounts the token endpoints, and which of them there are. */
export interface TokenMount {
  path: string
  introspect: boolean
  revoke: boolean
}

const documentOptions = ['signIn', 'info'] as const

/** Applies the defaults of the options of `openApi`, and refuses nonsense. */
export function readOptions(
  settings: Pick<Settings, 'currentUser' | 'isAdmin' | 'idTypes'>,
  options: OpenApiOptions,
) {
  const known = ['servers', 'router', 'adminRouter', 'organizationRouter', 'tokenRouter']
  checkOptions('openApi', options, [...known, ...documentOptions])
  const {
    servers,
    router = settings.currentUser ? '/api-keys' : false,
    adminRouter = settings.currentUser && settings.isAdmin ? '/admin/api-keys' : false,
    organizationRouter = false,
    tokenRouter = false,
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
  const tokens = tokenRouter === false ? undefined : readTokenRouter(tokenRouter)
  if (mounts.length === 0 && !tokens) throw new TypeError(nothing(settings))
  return { mounts, tokens, others: { ...others, ...(servers && { servers }) } }
}

function nothing({ currentUser }: Pick<Settings, 'currentUser'>): string {
  const why = currentUser
    ? ''
    : ': router and adminRouter need the option currentUser of createApiKeys'
  return `openApi: there is no router to describe${why}`
}

/** Reads which token endpoints there are, and at which path. */
function readTokenRouter(given: string | TokenRoutes): TokenMount {
  if (typeof given === 'string') return readTokenRouter({ path: given })
  const name = 'openApi: tokenRouter'
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new TypeError(`${name} must be a path or an object, got ${show(given)}`)
  }
  createOptionChecks('openApi').refuseUnknownNames(
    given,
    ['path', 'introspect', 'revoke'],
    'tokenRouter.',
  )
  const { path, introspect = true, revoke = true } = given
  if (typeof introspect !== 'boolean' || typeof revoke !== 'boolean' || !(introspect || revoke)) {
    throw new TypeError(`${name}: introspect and revoke must be true or false, and not both false`)
  }
  return { path: checkPath('tokenRouter', path), introspect, revoke }
}

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
