import type { Emitter } from '../keys/emitter'
import type { Parsers } from '../keys/input'
import type { SecretFormat } from '../keys/secret'
import type { Settings } from '../read-options'
import type { Verification } from '../verification/verification'
import { createAdminRouter } from './admin-routes'
import { createAnswers } from './answer'
import { createAuthenticator } from './authentication'
import { createCredentialReader, redactionPathsOf } from './credentials'
import { refuseRequest } from './guard-options'
import { createDecisionLog } from './decision-log'
import { createExplain } from './explain'
import { createGuards } from './guards'
import { createOrganizationRouter } from './organization-routes'
import { readRouterOptions } from './access'
import { createOwnerRouter } from './owner-routes'
import { createRateLimits } from './rate-limits'
import type { RouterParts } from './router'
import { createStrategy } from './strategy'

interface HttpParts extends Pick<RouterParts, 'lifecycle' | 'routeCommands' | 'grantable'> {
  settings: Settings
  parse: Parsers
  format: SecretFormat
  emitter: Emitter
  verification: Pick<Verification, 'verify' | 'rateLimiter' | 'recorder' | 'examine' | 'holdingOf'>
}

/**
 * Puts together all that an app uses over HTTP: the guards, the Passport strategy and the routers. `routerParts` are for routers of
 * the floor above.
 */
export function createHttp(given: HttpParts) {
  const { settings, format, verification } = given
  const { verify, rateLimiter, recorder } = verification
  const credentials = createCredentialReader({ ...format, header: settings.header })
  const authenticator = createAuthenticator({ ...given, credentials, verify, recorder })
  const parts = {
    ...given,
    answers: createAnswers(settings),
    authenticator,
    decisionLog: createDecisionLog({ format, authenticator }),
    rateLimits: createRateLimits(rateLimiter, recorder),
  }

  const calls = {
    ...createGuards(parts),
    explain: createExplain(parts),
    strategy: createStrategy(parts),
    redactionPaths: redactionPathsOf(settings.header),

    // If the app has not called these, Express passes a request.
    router(options?: unknown) {
      refuseRequest('router', options)
      const organization = readRouterOptions(options, parts)
      return organization ? createOrganizationRouter(parts, organization) : createOwnerRouter(parts)
    },
    adminRouter(...args: readonly unknown[]) {
      refuseRequest('adminRouter', args[0])
      return createAdminRouter(parts)
    },
  }
  return { calls, routerParts: parts }
}
