import { migrate } from '../migrations'
import { asGuest } from '../models/guest'
import type { OwnerTable, UserIdType } from '../models/storage-options'
import { tablesOf } from '../models/tables'
import type { ApiKeys } from './api'
import { limitAnswers } from './database/answer-limit'
import { createBackground } from './database/background'
import type * as pages from './console/console'
import type * as instruments from './metrics/instruments'
import { createConnections } from './database/connections'
import { refuseRequest } from './http/guard-options'
import { createHttp } from './http/http'
import { createAudit } from './audit/trail'
import type * as leakRoutes from './leaks/leak-router'
import { scannerRules } from './leaks/scanner-rules'
import { createTokens } from './tokens/tokens'
import { createExpiryNotices } from './lifecycle/expiry-notices'
import { createImportedKeys } from './importing/imported-keys'
import { createEmitter } from './keys/emitter'
import { createLifecycle } from './lifecycle/commands'
import { createObserved } from './database/observed'
import { createPlannedSize } from './database/prepared'
import { createOwnChanges } from './database/own-changes'
import { createParsers } from './keys/input'
import type { OrganizationOwner, ServiceOwner, UserOwner } from './keys/owner'
import { createOwnerNames } from './keys/owner-names'
import { createSecretFormat } from './keys/secret'
import { createSealer } from './audit/sealer'
import { createSigner } from './audit/signing'
import { createInTurn } from './database/turns'
import { createUsageStore } from './usage/report'
import { migrating } from './database/failures'
import { registerInstance } from './instances'
import type {
  AnyOptions,
  ApiKeysOptions,
  AppRequest,
  AppResponse,
  IdOf,
  PrefixOptions,
  SignedInUser,
} from './options'
import { readOptions } from './read-options'
import { createAskGrantable } from './verification/owner-permissions'
import { createServerClock, systemClock } from './database/clock'
import { createVerification } from './verification/verification'

/**
 * Sets up API keys for an app. Nothing is opened or queried before the first call that needs the database.
 *
 * @example
 * const apiKeys = createApiKeys({
 *   sequelize,
 *   keyPrefix: 'acme',
 *   permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
 *   currentUser: (req) => req.user,
 * })
 * @throws {TypeError} if options break the rules
 */
export function createApiKeys<
  const Permission extends string,
  User extends SignedInUser = SignedInUser,
  UserType extends UserIdType = 'text',
  const Organizations extends OwnerTable | false = false,
  Services extends boolean = false,
  const Environment extends string = never,
  const Resource extends string = never,
  Req = AppRequest,
  Res = AppResponse,
>(
  options: ApiKeysOptions<
    Permission,
    User,
    UserType,
    Organizations,
    Services,
    Environment,
    Resource,
    Req,
    Res
  > &
    PrefixOptions<Environment> &
    VisibleNames<Permission>,
): ApiKeys<
  {
    permission: Permission
    // Not a type of its own, so that editors show the owners.
    owner:
      | UserOwner<IdOf<UserType>>
      | (Services extends true ? ServiceOwner : never)
      | (Organizations extends object
          ? OrganizationOwner<
              Organizations extends { type: infer Type extends UserIdType } ? IdOf<Type> : string
            >
          : never)
    environment: Environment
    resource: Resource
  },
  User
> {
  // Inside, permissions are strings and ids are of any type. The signature checks that names and types fit together.
  return assemble(options as unknown as AnyOptions) as never
}

function assemble(options: AnyOptions): ApiKeys {
  const settings = readOptions(options)
  const { storage, sequelize: appSequelize } = settings
  const sequelize = limitAnswers(asGuest(appSequelize))
  const emitter = createEmitter()
  const tables = tablesOf(storage.schema)
  const background = createBackground()
  const signer = createSigner(settings)
  const clock = systemClock
  const connections = createConnections({ ...settings, appSequelize, background, clock })
  const connection = connections.usage
  /** The parts that all floors use. */
  const ground = {
    ...settings,
    appSequelize,
    sequelize,
    inTurn: createInTurn(sequelize),
    tables,
    background,
    observed: createObserved(),
    connections,
    emitter,
    signer,
    sealer: createSealer({ background, clock, connection, emitter, tables, signer }),
    format: createSecretFormat({ ...settings, keyPrefixes: settings.environments.ownPrefixes }),
    imported: settings.imports.length > 0 ? createImportedKeys(settings) : undefined,
    parse: createParsers(settings),
    ownChanges: createOwnChanges(clock),
    serverClock: createServerClock(),
    keysSize: createPlannedSize(tables.keys),
    namesOfOwners:
      settings.ownerNames && createOwnerNames(settings.ownerNames, { background, clock, emitter }),
  }
  const grantable =
    settings.grantable &&
    createAskGrantable({ grantable: settings.grantable, emitter, isAwaited: true })

  const audit = createAudit({ ...ground, connection })
  const verification = createVerification(ground)
  const usage = createUsageStore({ ...ground, ...verification })
  const commands = createLifecycle({ ...ground, grantable, audit, usage, verification })
  const expiryNotices = createExpiryNotices({ ...ground, ...commands })
  const http = createHttp({ ...ground, ...commands, settings, grantable, verification })

  const apiKeys: ApiKeys = {
    ...commands.lifecycle,
    ...http.calls,
    ...createTokens({ ...http.routerParts, ...http.calls, verify: verification.verifyAlone }),
    console: (options) => {
      refuseRequest('console', options)
      // Most processes show no pages, and load neither them nor their renderer.
      const { createConsole } = require('./console/console') as typeof pages
      return createConsole(http.routerParts, options)
    },
    leakRouter: (options) => {
      refuseRequest('leakRouter', options)
      const { createLeakRouter } = require('./leaks/leak-router') as typeof leakRoutes
      return createLeakRouter(http.routerParts, options)
    },
    scannerRules: (scanner) => scannerRules(settings, scanner),
    verify: verification.verifyAlone,
    health: verification.health,
    flush: verification.flush,
    instrument: (options) => {
      // Most apps have no OpenTelemetry, and load nothing for it.
      const { startInstruments } = require('./metrics/instruments') as typeof instruments
      return startInstruments({ ...ground, ...verification }, options)
    },
    announceExpiring: expiryNotices.announceExpiring,
    on: (name, listener) => {
      const off = emitter.on(name, listener)
      if (name === 'expiring') expiryNotices.start()
      return off
    },
    migrate: () => migrating(() => migrate(appSequelize, storage)),
    close: async () => {
      expiryNotices.stop()
      await verification.close()
    },
  }
  registerInstance(apiKeys, ground)
  return apiKeys
}

/** Refuses a `string[]`, because the compiler could not check the names in guards. */
type VisibleNames<Permission extends string> = string extends Permission
  ? { permissions: 'The names must be visible to the compiler: write them here, or add `as const`' }
  : unknown
