/*
 * The promises of the types. This program must compile in a project of its own, with the types of Express 4 and of
 * Express 5. A line below `@ts-expect-error` must be an error.
 */
import express, { type NextFunction, type Request, type Response } from 'express'
import {
  createApiKeys,
  migrations,
  type AnyApiKeys,
  type ApiKeys,
  type ApiKeyRecord,
  type App,
  type ErrorCode,
  type NamedOwner,
  type OrganizationOwner,
  type Owner,
  type ServiceOwner,
  type Resources,
  type UserOwner,
  type VerifiedApiKey,
} from 'express-api-keys'
import passport from 'passport'
import { DataTypes, Model, Sequelize } from 'sequelize'

declare global {
  namespace Express {
    interface User {
      id: string
      admin: boolean
    }
    // The app declares the properties that it uses, because the package adds nothing to the type of a request.
    interface Request {
      apiKey?: VerifiedApiKey
    }
  }
}

// As the page on HTTP says.
declare module 'passport' {
  interface AuthenticateOptions {
    environment?: 'live' | 'test' | readonly ('live' | 'test')[]
  }
}

type Equal<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false

function isTrue<Claim extends true>(claim?: Claim) {
  return claim
}

/** What the options below make of apps. */
interface Graphs extends App {
  permission: 'READ_GRAPH' | 'EXECUTE_GRAPH'
  owner: UserOwner<string>
  environment: never
  resource: never
}
interface Alone<Id extends string | number> extends App {
  permission: 'A'
  owner: UserOwner<Id>
  environment: never
  resource: never
}

const sequelize = new Sequelize('postgres://localhost/app')
const app = express()

const apiKeys = createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: { READ_GRAPH: 'Read graphs', EXECUTE_GRAPH: 'Execute graphs' },
  currentUser: (req) => req.user,
  isAdmin: (user) => user.admin,
  loadOwner: async ({ id: userId }) => ({ id: userId.toUpperCase(), admin: false }),
  grantable: ({ id: userId }) =>
    userId === 'alice' ? ['READ_GRAPH', 'EXECUTE_GRAPH'] : ['READ_GRAPH'],
  onRefusal(error, req, res, next) {
    isTrue<Equal<typeof error.code, ErrorCode>>()
    res.status(error.status).set(error.headers)
    next(error)
  },
})

// The routers and guards fit wherever Express takes a handler.
app.use('/api-keys', apiKeys.router())
app.use('/admin/api-keys', apiKeys.adminRouter())
app.use(apiKeys.authenticate({ optional: true }))
passport.use(apiKeys.strategy)
passport.authenticate('api-key', { session: false, environment: ['live', 'test'] })
// @ts-expect-error: not an environment
passport.authenticate('api-key', { environment: 'prod' })

// Behind a guard a route keeps its types.
app.get('/graphs/:id', apiKeys.requirePermission('READ_GRAPH'), (req, res) => {
  isTrue<Equal<typeof req.params.id, string>>()
  isTrue<Equal<typeof req.params, { id: string }>>()

  const apiKey = apiKeys.getApiKey(req)
  isTrue<Equal<typeof apiKey, VerifiedApiKey<Graphs>>>()
  isTrue<Equal<typeof apiKey.userId, string>>()
  isTrue<Equal<typeof req.apiKey, VerifiedApiKey | undefined>>()

  // @ts-expect-error a key is not to be changed
  apiKey.permissions.push('EXECUTE_GRAPH')
  res.json({ allowed: apiKeys.hasPermission(apiKey, 'EXECUTE_GRAPH') })
})
app.post(
  '/graphs/:id/:step',
  express.json(),
  apiKeys.requirePermission(['READ_GRAPH', 'EXECUTE_GRAPH'], { orSignedIn: true }),
  apiKeys.requirePermission({ any: ['READ_GRAPH', { all: ['READ_GRAPH', 'EXECUTE_GRAPH'] }] }),
  async (req: Request<{ id: string; step: string }, object, { input: number }>, res) => {
    isTrue<Equal<typeof req.body.input, number>>()
    res.json({})
  },
)

// Permissions may imply others, and have former names.
const implying = createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: {
    'graphs:read': 'Read graphs',
    'graphs:run': { description: 'Run graphs', implies: ['graphs:read'] },
    admin: { description: 'Everything', implies: '*' },
  },
  formerPermissions: { RUN_GRAPH: 'graphs:run', LIST_BLOCKS: null },
  grantable: () => ['graphs:run'],
})
implying.requirePermission({ any: ['admin', { all: ['graphs:read', 'graphs:run'] }] })
// @ts-expect-error a former name is no permission
implying.requirePermission('RUN_GRAPH')
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: {
    READ: 'Read',
    // @ts-expect-error WRITE is not among the permissions, and does not become one by being implied
    ADMIN: { description: 'Everything', implies: ['WRITE'] },
  },
}).requirePermission('ADMIN')

// Permission names are checked in every place.
// @ts-expect-error there is no such permission
apiKeys.requirePermission('READ_GRAPHS')
// @ts-expect-error there is no such permission
apiKeys.requirePermission({ any: ['READ_GRAPH', 'WRITE'] })
// @ts-expect-error there is no such permission
apiKeys.requirePermission({ any: ['READ_GRAPH', { all: ['WRITE'] }] })
// @ts-expect-error a list says all
apiKeys.requirePermission({ all: ['READ_GRAPH'] })
// @ts-expect-error there is no such permission
apiKeys.tokenRouter({ introspect: { permission: 'WRITE' } })
// @ts-expect-error the app has no environments
apiKeys.tokenRouter({ introspect: { permission: 'READ_GRAPH', environment: 'live' } })
app.use(
  '/oauth',
  apiKeys.tokenRouter({
    introspect: {
      permission: { any: ['READ_GRAPH', 'EXECUTE_GRAPH'] },
      mayIntrospect(caller, introspection) {
        isTrue<Equal<typeof caller, VerifiedApiKey<Graphs>>>()
        isTrue<Equal<typeof introspection.owner, UserOwner<string>>>()
        isTrue<Equal<typeof introspection.exp, number | undefined>>()
        return introspection.owner.id === caller.userId
      },
    },
  }),
)

// The caller that tools of the Model Context Protocol get has the types of the app.
app.use('/mcp', apiKeys.requirePermission('READ_GRAPH', { mcp: true }))
apiKeys.mcpVerifier()
const errors = { InvalidTokenError: Error, TooManyRequestsError: Error }
void apiKeys
  .mcpVerifier({ errors })
  .verifyAccessToken('acme_')
  .then(({ token, scopes, extra }) => {
    isTrue<Equal<typeof token, string>>()
    isTrue<Equal<typeof scopes, ('READ_GRAPH' | 'EXECUTE_GRAPH')[]>>()
    isTrue<Equal<typeof extra.apiKey, VerifiedApiKey<Graphs>>>()
  })
// @ts-expect-error there is no such permission
void apiKeys.create({ userId: 'alice', name: 'CI', permissions: ['WRITE'] })
// @ts-expect-error there is no such permission
void apiKeys.list({ permission: 'WRITE' })
// @ts-expect-error there is no such option
apiKeys.authenticate({ orSignedin: true })
void apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { everywhere: true })
// @ts-expect-error no entry would note it
void apiKeys.ownerChanged({ type: 'user', id: 'alice' }, { reason: 'moved on' })

createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A', 'B'],
  // @ts-expect-error C is not among the permissions, and does not become one by being granted
  grantable: () => ['A', 'C'],
})

// The parameters of the app's functions have the app's types, written or not.
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  currentUser: (req: Request) =>
    req.signedCookies.user ? { id: 'alice', roles: ['admin'] } : null,
  isAdmin: (user) => user.roles.includes('admin'),
  loadOwner: ({ id: userId }, req) => (req.accepts('json') ? { id: userId } : null),
  onRefusal: (error, req: Request, res: Response, next: NextFunction) => {
    res.status(error.status).json({ code: error.code })
    next()
  },
})
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  // @ts-expect-error a property that not all versions of Express have needs the types of one version
  currentUser: (req) => req.session,
})

// Types of resources are a union of the names in the option, and are checked in every place.
const bound = createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['READ', 'RUN'],
  resources: {
    graph: true,
    project: async (ids, owner, { transaction }) => {
      isTrue<Equal<typeof ids, readonly string[]>>()
      return ids.length === 0 || (owner.type === 'user' && transaction !== undefined)
    },
  },
})
app.post(
  '/bound/:id/run',
  bound.requirePermission('RUN', { resource: (req) => ({ graph: req.params.id }) }),
  bound.requirePermission('RUN', {
    resource: (req: Request<{ id: string }>) => ({
      graph: req.params.id,
      project: req.get('X-Project'),
    }),
  }),
  bound.requirePermission(['READ', 'RUN'], { resource: null, orSignedIn: true, cost: 2 }),
  bound.authenticate({ resource: (req) => ({ project: String(req.query.project) }) }),
  (req, res) => {
    isTrue<Equal<typeof req.params.id, string>>()
    const apiKey = bound.getApiKey(req)
    isTrue<Equal<typeof apiKey.resources, Resources<'graph' | 'project'> | null>>()
    isTrue<Equal<NonNullable<typeof apiKey.resources>['graph'], readonly string[] | undefined>>()
    isTrue<Equal<ReturnType<typeof apiKey.allows>, boolean>>()
    // @ts-expect-error there is no such type of resources
    apiKey.allows('block', '7')
    // @ts-expect-error ids are text
    apiKey.allows('graph', 7)
    // @ts-expect-error what a key is bound to is not to be changed
    apiKey.resources?.graph?.push('8')
    res.json({})
  },
)
bound.tokenRouter({
  introspect: {
    permission: 'READ',
    mayIntrospect: (caller, { owner, resources }) => {
      isTrue<Equal<typeof resources, Resources<'graph' | 'project'> | undefined>>()
      return caller.userId === owner.id
    },
  },
})
void bound.create({
  userId: 'alice',
  name: 'CI',
  permissions: ['RUN'],
  resources: { graph: ['7'], project: [] },
})
void bound.update('7', { resources: null })
void bound.verify('acme_', { resource: { graph: '7' } })
void bound
  .get('7')
  .then(({ resources }) => isTrue<Equal<typeof resources, Resources<'graph' | 'project'> | null>>())
const fields = { userId: 'alice', name: 'CI', permissions: ['RUN'] } as const
// @ts-expect-error there is no such type of resources
void bound.create({ ...fields, resources: { block: ['7'] } })
// @ts-expect-error ids are text
void bound.create({ ...fields, resources: { graph: [7] } })
// @ts-expect-error there is no such type of resources
void bound.update('7', { resources: { block: ['7'] } })
// @ts-expect-error there is no such type of resources
void bound.verify('acme_', { resource: { block: '7' } })
// @ts-expect-error there is no such type of resources
bound.requirePermission('RUN', { resource: (req) => ({ block: req.params.id }) })
// @ts-expect-error a guard decides at once
bound.requirePermission('RUN', { resource: async (req) => ({ graph: req.params.id }) })
// @ts-expect-error a function names the resource of each request
bound.requirePermission('RUN', { resource: { graph: '7' } })
// @ts-expect-error a type has true or a function
createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'], resources: { graph: 'yes' } })
// Without the option there is no trace of it.
// @ts-expect-error there are no resources
apiKeys.requirePermission('READ_GRAPH', { resource: null })
// @ts-expect-error there are no resources
void apiKeys.create({ userId: 'alice', name: 'CI', permissions: ['READ_GRAPH'], resources: null })
// @ts-expect-error there are no resources
apiKeys.getApiKey({}).resources
// @ts-expect-error there are no resources
apiKeys.getApiKey({}).allows('graph', '7')
// @ts-expect-error there are no resources
void apiKeys.get('7').then(({ resources }) => resources)

// Names that the compiler cannot see are refused.
const names: string[] = ['A', 'B']
// @ts-expect-error a list of any strings
createApiKeys({ sequelize, keyPrefix: 'acme', permissions: names })
const described: Record<string, string> = { A: 'a' }
// @ts-expect-error an object with any keys
createApiKeys({ sequelize, keyPrefix: 'acme', permissions: described })
const constant = ['A', 'B'] as const
createApiKeys({ sequelize, keyPrefix: 'acme', permissions: constant }).requirePermission('B')
enum Scope {
  Read = 'read',
  Write = 'write',
}
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: Object.values(Scope),
}).requirePermission(Scope.Read)

// The user's type is what currentUser returns.
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  currentUser: async () => ({ id: 7, roles: ['admin'] }),
  isAdmin: (user) => user.roles.includes('admin'),
})
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  // @ts-expect-error a user needs an id
  currentUser: () => ({ name: 'alice' }),
})
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  currentUser: (req) => req.user,
  // @ts-expect-error the user has no such property
  isAdmin: (user) => user.isAdministrator,
})
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  // @ts-expect-error there is no such option
  keyprefix: 'acme',
})

// Ids of type integer are numbers.
const numbered = createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  users: { table: 'users', type: 'integer' },
  loadOwner: ({ id: userId }) => ({ id: userId.toFixed() }),
})

// A model names the table, in each way that Sequelize makes one. Its ids are strings, unless the type is named.
class Person extends Model<{ id: number }> {
  declare id: number
}
const Member = sequelize.define('Member', { id: { type: DataTypes.INTEGER, primaryKey: true } })
const ofModels = {
  alone: createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'], users: Person }),
  defined: createApiKeys({ sequelize, keyPrefix: 'acme', permissions: ['A'], users: Member }),
  typed: createApiKeys({
    sequelize,
    keyPrefix: 'acme',
    permissions: ['A'],
    users: { table: Person, type: 'integer' },
  }),
}

// Owners are a union made from the options.
const ownersOfNames = {
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  users: { table: 'users', type: 'integer' },
  services: true,
} as const
const owned = createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  users: { table: 'users', type: 'integer' },
  organizations: { table: 'organizations', type: 'uuid' },
  services: true,
  maxKeysPerOwner: { user: 10, organization: 100 },
  currentUser: (req) => req.user,
  grantable(owner) {
    isTrue<Equal<typeof owner, UserOwner<number> | ServiceOwner | OrganizationOwner<string>>>()
    return owner.type === 'user' ? ['A'] : []
  },
  loadOwner: (owner) => (owner.type === 'user' ? { id: owner.id.toFixed() } : null),
  ownerNames(owners) {
    const ids = owners.flatMap((owner) => (owner.type === 'user' ? [owner.id] : []))
    isTrue<Equal<typeof ids, number[]>>()
    return ids.map((id) => ({ type: 'user', id, name: id === 7 ? 'Alice' : null }))
  },
})
const named: NamedOwner<UserOwner<number>>[] = [{ type: 'user', id: 7, name: 'Alice' }]
createApiKeys({ ...ownersOfNames, ownerNames: async () => named })
createApiKeys({ ...ownersOfNames, ownerNames: () => [{ type: 'service', id: 'a', name: 'A' }] })
// @ts-expect-error ids of users are numbers
createApiKeys({ ...ownersOfNames, ownerNames: () => [{ type: 'user', id: 'alice', name: 'A' }] })
// @ts-expect-error a name is text
createApiKeys({ ...ownersOfNames, ownerNames: () => [{ type: 'user', id: 7, name: 7 }] })
// @ts-expect-error the app has no organizations
createApiKeys({ ...ownersOfNames, ownerNames: () => [{ type: 'organization', id: 7, name: 'A' }] })
app.use(
  '/organizations/:organizationId/api-keys',
  owned.router({
    organization(req, user) {
      isTrue<Equal<typeof user, Express.User>>()
      return { id: String(req.params.organizationId), readOnly: !user.admin, permissions: ['A'] }
    },
  }),
)
isTrue<
  Equal<
    ReturnType<(typeof owned)['getApiKey']>['owner'],
    UserOwner<number> | ServiceOwner | OrganizationOwner<string>
  >
>()
const wish = { name: 'CI', permissions: ['A'] } as const
void owned.create({ ...wish, owner: { type: 'service', id: 'importer' } })
void owned.create({ ...wish, owner: { type: 'organization', id: 'acme' } })
void owned.create({ ...wish, userId: 7 })
void owned.list({ owner: { type: 'organization', id: 'acme' }, createdBy: 7 })
void owned.revokeAll({ type: 'service', id: 'importer' })
// @ts-expect-error ids of users are numbers
void owned.create({ ...wish, owner: { type: 'user', id: 'alice' } })
// @ts-expect-error there is no such kind of owner
void owned.create({ ...wish, owner: { type: 'team', id: 'acme' } })
// @ts-expect-error a key has one owner
void owned.create({ ...wish, userId: 7, owner: { type: 'service', id: 'importer' } })
// @ts-expect-error a key has an owner
void owned.create({ ...wish })
// @ts-expect-error an owner is named by type and id
void owned.revokeAll(7)
// @ts-expect-error an owner that may be missing would mean all of them
void owned.list({ owner: undefined })
// @ts-expect-error the owner may be no user
owned.getApiKey({}).userId
// @ts-expect-error C is not among the permissions
owned.router({ organization: () => ({ id: 'acme', permissions: ['C'] }) })
// @ts-expect-error the app has no organizations
void apiKeys.create({ ...wish, owner: { type: 'organization', id: 'acme' } })
// @ts-expect-error the app has no services
void numbered.create({ ...wish, owner: { type: 'service', id: 'importer' } })
// @ts-expect-error ids of organizations are text
void owned.create({ ...wish, owner: { type: 'organization', id: 7 } })
// @ts-expect-error a service has a name
void owned.create({ ...wish, owner: { type: 'service', id: 7 } })
// @ts-expect-error an owner has an id
void owned.create({ ...wish, owner: { type: 'organization' } })
// @ts-expect-error the owner is missing by mistake
void owned.create({ ...wish, owner: undefined })
// @ts-expect-error the user is missing by mistake
void owned.create({ ...wish, userId: undefined })
// @ts-expect-error owner is the name
void owned.create({ ...wish, organizationId: 'acme' })
// @ts-expect-error an owner is named by type and id
void owned.transfer('7', 'acme')
// @ts-expect-error a key has an owner
void owned.transfer('7', undefined)
// @ts-expect-error ids of users are numbers
void owned.transfer('7', { type: 'user', id: 'alice' })
// @ts-expect-error there is no such kind of owner
void owned.suspendOwner({ type: 'team', id: 'acme' })
// @ts-expect-error an owner is named by type and id
void owned.reactivateOwner(7)
// @ts-expect-error an owner is named by type and id
void owned.ownerChanged(7)
// @ts-expect-error the app has no organizations
void numbered.suspendOwner({ type: 'organization', id: 'acme' })
// @ts-expect-error the user is missing by mistake
void owned.list({ userId: undefined })
// @ts-expect-error an access has an id
owned.router({ organization: () => ({ readOnly: true }) })
// @ts-expect-error readOnly is true or false
owned.router({ organization: () => ({ id: 'acme', readOnly: 'yes' }) })
// @ts-expect-error there is no such option
owned.router({ organisation: () => 'acme' })
const shared = { sequelize, keyPrefix: 'acme', permissions: ['A'] } as const
// @ts-expect-error services are there or not
createApiKeys({ ...shared, services: 'importer' })
// @ts-expect-error there is no such type of ids
createApiKeys({ ...shared, organizations: { table: 'organizations', type: 'guid' } })
// @ts-expect-error there is no such kind of owner
createApiKeys({ ...shared, maxKeysPerOwner: { team: 10 } })
// @ts-expect-error a permission that is not among them is granted
createApiKeys({ ...shared, services: true, grantable: () => ['B'] })
// @ts-expect-error the app has no services
createApiKeys({ ...shared, loadOwner: (owner) => (owner.type === 'service' ? null : { id: 7 }) })

// A table without a type has ids that are strings, as for users.
const untyped = createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  permissions: ['A'],
  organizations: { table: 'organizations' },
})
isTrue<
  Equal<
    ReturnType<(typeof untyped)['getApiKey']>['owner'],
    UserOwner<string> | OrganizationOwner<string>
  >
>()

// A function can take the API keys, a key and a record of any app.
interface EverythingApp {
  permission: 'A'
  owner: Owner
  environment: 'live' | 'test'
  resource: 'graph'
}
declare const everything: ApiKeys<EverythingApp>

export async function useAnyApp(any: AnyApiKeys) {
  const { id, owner, permissions } = any.getApiKey({})
  isTrue<Equal<typeof owner, Owner>>()
  isTrue<Equal<typeof permissions, readonly string[]>>()
  const describe = (apiKey: VerifiedApiKey | ApiKeyRecord) => `${id} ${apiKey.owner.type}`
  describe(numbered.getApiKey({}))
  describe((await apiKeys.list()).apiKeys[0] ?? any.getApiKey({}))
  describe(everything.getApiKey({}))
}
void useAnyApp(apiKeys)
void useAnyApp(numbered)
void useAnyApp(everything)
void useAnyApp(owned)

// Where not all owners are users, a key has no userId that a query would take for nobody's.
isTrue<Equal<ReturnType<(typeof numbered)['getApiKey']>['userId'], number>>()
// @ts-expect-error the owner may be an organisation
everything.getApiKey({}).userId
// @ts-expect-error the owner may be an organisation
void everything.get('7').then(({ userId }) => userId)

// An app with environments: their names are a union, made from the option.
const separate = createApiKeys({
  sequelize,
  environments: { live: 'acme_live', test: { prefix: 'acme_test', formerPrefixes: ['acme'] } },
  acceptedEnvironments: ['live'],
  permissions: ['A'],
})
isTrue<Equal<ReturnType<(typeof separate)['getApiKey']>['environment'], 'live' | 'test'>>()
separate.requirePermission('A', { environment: 'test' })
separate.authenticate({ environment: ['live', 'test'], optional: true })
// @ts-expect-error the environment is a typo
separate.requirePermission('A', { environment: 'tset' })
// @ts-expect-error the app has no environments
apiKeys.requirePermission('READ_GRAPH', { environment: 'test' })
// @ts-expect-error the key has no environment
apiKeys.getApiKey({}).environment
// @ts-expect-error the environments that guards accept are missing
createApiKeys({ sequelize, environments: { live: 'acme_live' }, permissions: ['A'] })
createApiKeys({
  sequelize,
  environments: { live: 'acme_live' },
  // @ts-expect-error the accepted environment is a typo
  acceptedEnvironments: ['life'],
  permissions: ['A'],
})
createApiKeys({
  sequelize,
  // @ts-expect-error each of the environments has a prefix
  keyPrefix: 'acme',
  environments: { live: 'acme_live' },
  acceptedEnvironments: ['live'],
  permissions: ['A'],
})
createApiKeys({
  sequelize,
  keyPrefix: 'acme',
  // @ts-expect-error there are no environments to accept
  acceptedEnvironments: ['live'],
  permissions: ['A'],
})

export async function useEnvironments() {
  const input = { userId: 'alice', name: 'CI', permissions: ['A'] } as const
  const { apiKey } = await separate.create({ ...input, environment: 'test' })
  isTrue<Equal<typeof apiKey.environment, 'live' | 'test'>>()
  // @ts-expect-error a new key names one of several environments
  await separate.create(input)
  // @ts-expect-error the environment is a typo
  await separate.create({ ...input, environment: 'tset' })
  await separate.list({ environment: 'live' })
  // @ts-expect-error the environment is a typo
  await separate.list({ environment: 'life' })
  await separate.verify('acme_test_', { environment: 'test' })
  // @ts-expect-error an environment never changes
  await separate.update(apiKey.id, { environment: 'live' })
  // @ts-expect-error the app has no environments
  await apiKeys.list({ environment: 'live' })

  const only = { environments: { only: 'acme' }, acceptedEnvironments: ['only'] } as const
  const one = createApiKeys({ sequelize, permissions: ['A'], ...only })
  await one.create(input)
}

export async function useWithoutHttp() {
  const { apiKey, plainTextKey } = await apiKeys.create({
    userId: 'alice',
    name: 'CI',
    permissions: ['READ_GRAPH'],
    expiresAt: new Date('2030-01-01'),
  })
  isTrue<Equal<typeof apiKey, ApiKeyRecord<Graphs>>>()
  isTrue<Equal<typeof plainTextKey, string>>()
  // @ts-expect-error records have no hash
  apiKey.hash

  const verdict = await numbered.verify(plainTextKey)
  if (verdict.valid) isTrue<Equal<typeof verdict.apiKey.userId, number>>()
  else
    isTrue<
      Equal<
        typeof verdict.code,
        | 'malformed'
        | 'unknown'
        | 'revoked'
        | 'suspended'
        | 'expired'
        | 'retired'
        | 'environment_mismatch'
        | 'address_not_allowed'
        | 'environment_not_allowed'
        | 'resource_not_allowed'
        | 'too_many_attempts'
      >
    >()

  await apiKeys.revoke(apiKey.id, {
    userId: 'alice',
    actor: { type: 'admin', id: 'root' },
    reason: 'lost',
    transaction: await sequelize.transaction(),
  })
  // @ts-expect-error a user acts under an id
  await apiKeys.revoke(apiKey.id, { actor: { type: 'user' } })

  const { apiKeys: strings } = await ofModels.alone.list()
  isTrue<Equal<typeof strings, ApiKeyRecord<Alone<string>>[]>>()
  const { apiKeys: others } = await ofModels.defined.list()
  isTrue<Equal<typeof others, ApiKeyRecord<Alone<string>>[]>>()
  const { apiKeys: numbers } = await ofModels.typed.list()
  isTrue<Equal<typeof numbers, ApiKeyRecord<Alone<number>>[]>>()

  await migrations.initial({ users: Person }).up(sequelize.getQueryInterface())
  await migrations.initial({ users: { type: 'uuid' } }).up(sequelize.getQueryInterface())
}
