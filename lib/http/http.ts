import type { Background } from '../database/background'
import type { ImportedKeys } from '../importing/imported-keys'
import type { Emitter } from '../keys/emitter'
import type { Parsers } from '../keys/input'
import type { SecretFormat } from '../keys/secret'
import type { OwnerNames } from '../keys/owner-names'
import type { GuardsOptions, OpenApiOptions } from '../openapi/options'
import type { Settings } from '../read-options'
import type { Verification } from '../verification/verification'
import type * as adminRoutes from './admin-routes'
import { createAnswers } from './answer'
import { createAuthenticator } from './authentication'
import { createCredentialReader, redactionPathsOf } from './credentials'
import { refuseRequest } from './guard-options'
import { createDecisionLog } from './decision-log'
import { createExplain } from './explain'
import { createGuards } from './guards'
import type * as organizationRoutes from './organization-routes'
import type * as documents from '../openapi/document'
import type * as documentedGuards from '../openapi/guards'
import { readAdminRouterOptions, readRouterOptions } from './access'
import type * as ownerRoutes from './owner-routes'
import { createRateLimits } from './rate-limits'
import type { RouterParts } from './router'
import { createPlainHttp } from './plain-http'
import { createStrategy } from './strategy'
import { createTransport } from './transport'

interface HttpParts extends Pick<RouterParts, 'lifecycle' | 'routeCommands' | 'grantable'> {
  settings: Settings
  parse: Parsers
  format: SecretFormat
  imported: ImportedKeys | undefined
  emitter: Emitter
  verification: Pick<
    Verification,
    | 'verify'
    | 'rateLimiter'
    | 'recorder'
    | 'examine'
    | 'locate'
    | 'inspect'
    | 'holdingOf'
    | 'health'
    | 'outcomes'
  >
  background: Background
  /** `undefined` if the app has no names for owners. */
  namesOfOwners: OwnerNames | undefined
}

/**
 * Puts together all that an app uses over HTTP: the guards, the Passport strategy and the routers. `routerParts` are for routers of
 * the floor above.
 */
export function createHttp(given: HttpParts) {
  const { settings, format, imported, verification } = given
  const { verify, rateLimiter, recorder, outcomes } = verification
  const credentials = createCredentialReader({ ...format, header: settings.header, imported })
  const authenticator = createAuthenticator({
    ...given,
    credentials,
    verify,
    recorder,
    outcomes,
    transport: createTransport(settings),
    revokeLater: createPlainHttp(given),
  })
  const parts = {
    ...given,
    answers: createAnswers(settings),
    authenticator,
    decisionLog: createDecisionLog({ format, imported, authenticator }),
    rateLimits: createRateLimits(rateLimiter, recorder),
  }

  const calls = {
    ...createGuards(parts),
    explain: createExplain(parts),
    strategy: createStrategy(parts),
    redactionPaths: redactionPathsOf(settings.header, imported),

    // If the app has not called these, Express passes a request. Jobs and commands make no routers, and load neither them nor Express.
    router(options?: unknown) {
      refuseRequest('router', options)
      const { organization, openApi } = readRouterOptions(options, parts)
      if (organization) {
        const routes = require('./organization-routes') as typeof organizationRoutes
        return routes.createOrganizationRouter(parts, organization, openApi)
      }
      const { createOwnerRouter } = require('./owner-routes') as typeof ownerRoutes
      return createOwnerRouter(parts, openApi)
    },
    adminRouter(options?: unknown) {
      refuseRequest('adminRouter', options)
      const { createAdminRouter } = require('./admin-routes') as typeof adminRoutes
      return createAdminRouter(parts, readAdminRouterOptions(options).openApi)
    },

    // Most processes make no documents, and load nothing for them.
    openApi(options?: OpenApiOptions) {
      const { createDocument } = require('../openapi/document') as typeof documents
      return createDocument(parts, options)
    },
    documentGuards<Document extends object>(document: Document, options?: GuardsOptions) {
      const guards = require('../openapi/guards') as typeof documentedGuards
      return guards.documentGuards(parts, document, options) as Document
    },
  }
  return { calls, routerParts: parts }
}
