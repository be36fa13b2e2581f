import { migrate } from '../migrations'
import { asGuest } from '../models/guest'
import type { UserIdType } from '../models/storage-options'
import { tablesOf } from '../models/tables'
import type { ApiKeys } from './api'
import { createBackground } from './database/background'
import { createAnswers } from './http/answer'
import { createAdminRouter } from './http/admin-routes'
import { createAuthenticator } from './http/authentication'
import { createCredentialReader, redactionPathsOf } from './http/credentials'
import { refuseRequest } from './http/guard-options'
import { createGuards } from './http/guards'
import { createOwnerRouter } from './http/owner-routes'
import { createRateLimits } from './http/rate-limits'
import { createStrategy } from './http/strategy'
import { createAudit } from './audit/trail'
import { createExpiryNotices } from './lifecycle/expiry-notices'
import { createEmitter } from './keys/emitter'
import { createLifecycle } from './lifecycle/commands'
import { createOwnChanges } from './database/own-changes'
import { createParsers } from './keys/input'
import { createSecretFormat } from './keys/secret'
import { createSigner } from './audit/signing'
import { createInTurn } from './database/turns'
import { createUsageStore } from './usage/report'
import { migrating } from './database/migrating'
import type {
  AnyOptions,
  ApiKeysOptions,
  AppRequest,
  AppResponse,
  SignedInUser,
  UserIdOf,
} from './options'
import { readOptions } from './read-options'
import { createAskGrantable } from './verification/ask-grantable'
import { systemClock } from './database/clock'
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
 * @throws {TypeError} for options that make no sense
 */
export function createApiKeys<
  const Permission extends string,
  User extends SignedInUser = SignedInUser,
  Type extends UserIdType = 'text',
  Req = AppRequest,
  Res = AppResponse,
>(
  options: ApiKeysOptions<Permission, User, Type, Req, Res> & VisibleNames<Permission>,
): ApiKeys<Permission, UserIdOf<Type>> {
  // Inside, permissions are strings and users have ids: that names and types fit together is checked out here.
  const settings = readOptions(options as unknown as AnyOptions)
  const { storage } = settings
  const { schema, userIdType } = storage
  const background = createBackground()

  const sequelize = asGuest(settings.sequelize)
  const inTurn = createInTurn(sequelize)
  const emitter = createEmitter()
  const signer = createSigner(settings)
  const tables = tablesOf(schema)
  const ownChanges = createOwnChanges(systemClock)
  const audit = createAudit({
    ...settings,
    sequelize,
    inTurn,
    tables,
    userIdType,
    signer,
    emitter,
    ownChanges,
  })
  const format = createSecretFormat(settings)
  const parse = createParsers({ ...settings, userIdType })
  const verification = createVerification({
    ...settings,
    background,
    appSequelize: settings.sequelize,
    sequelize,
    tables,
    signer,
    userIdType,
    format,
    emitter,
    ownChanges,
  })
  const { verify, verifyAlone, rateLimiter, recorder, writer } = verification
  const { health, flush } = verification
  const { noteDenied, noteRateLimited } = recorder
  const grantable =
    settings.grantable &&
    createAskGrantable({
      grantable: settings.grantable,
      onFailure: (userId, error) => emitter.emit('grantable_unavailable', { userId, error }),
      isAwaited: true,
    })
  const usage = createUsageStore({
    ...settings,
    sequelize,
    inTurn,
    tables,
    userIdType,
    recorder,
    writer,
  })
  const { lifecycle, routeCommands } = createLifecycle({
    ...settings,
    sequelize,
    tables,
    userIdType,
    parse,
    format,
    grantable,
    emitter,
    background,
    inTurn,
    audit,
    usage,
    verification,
  })
  const expiryNotices = createExpiryNotices({
    ...settings,
    sequelize,
    tables,
    background,
    lifecycle,
    emitter,
  })

  const credentials = createCredentialReader({ ...format, header: settings.header })
  const authenticator = createAuthenticator({
    credentials,
    verify,
    noteDenied,
    emitter,
    parse,
    settings,
  })
  const answers = createAnswers(settings)
  const rateLimits = createRateLimits({ rateLimiter, noteRateLimited, emitter })
  const http = {
    lifecycle,
    routeCommands,
    parse,
    authenticator,
    grantable,
    rateLimits,
    noteDenied,
    answers,
    settings,
  }

  async function close() {
    expiryNotices.stop()
    await verification.close()
  }

  const apiKeys = {
    ...lifecycle,
    ...createGuards(http),
    verify: verifyAlone,
    announceExpiring: expiryNotices.announceExpiring,
    health,
    flush,
    close,
    router: (...given: readonly unknown[]) => {
      refuseRequest('router', given[0])
      return createOwnerRouter(http)
    },
    adminRouter: (...given: readonly unknown[]) => {
      refuseRequest('adminRouter', given[0])
      return createAdminRouter(http)
    },
    redactionPaths: redactionPathsOf(settings.header),
    strategy: createStrategy({ authenticator, rateLimits, answers }),
    on: (name, listener) => {
      const off = emitter.on(name, listener)
      if (name === 'expiring') expiryNotices.start()
      return off
    },
    migrate: () => migrating(() => migrate(settings.sequelize, storage)),
  } satisfies ApiKeys

  // And out again: at run time the strings are the app's permissions, and ids have the type of its column.
  return apiKeys as unknown as ApiKeys<Permission, UserIdOf<Type>>
}

/** Refuses a `string[]`: with names that the compiler cannot see, no guard would be checked. */
type VisibleNames<Permission extends string> = string extends Permission
  ? { permissions: 'The names must be visible to the compiler: write them here, or add `as const`' }
  : unknown
