import type { ErrorCode } from '../errors'
import type { Settings } from '../read-options'
import { ofAllOwners } from './admin-operations'
import { ofOneOwner } from './key-operations'
import type { Operation } from './operation'

/** The routers of the library. */
export type RouterName = 'router' | 'organizationRouter' | 'adminRouter'

/** All routes of the routers. */
export const operations: Readonly<Record<RouterName, readonly Operation[]>> = {
  router: ofOneOwner,
  organizationRouter: ofOneOwner,
  adminRouter: ofAllOwners,
}

/** Who may enter a router. */
const admissions: Record<RouterName, readonly ErrorCode[]> = {
  router: [],
  organizationRouter: ['organization_not_found'],
  adminRouter: ['not_an_admin'],
}

/** Returns all refusals that a route may answer. */
export function refusalsOf(router: RouterName, operation: Operation): ErrorCode[] {
  const { method, path, query, body, isOnce, refusals = [] } = operation
  const isChange = method !== 'get'
  const codes: ErrorCode[] = [
    'insecure_transport',
    'not_signed_in',
    'api_key_not_allowed',
    ...admissions[router],
    'database_unavailable',
  ]
  if (isChange) {
    codes.push('cross_site_request', 'precondition_failed')
    codes.push('malformed_json', 'body_too_large', 'unsupported_media_type')
    if (router === 'organizationRouter') codes.push('read_only')
  }
  if (path.includes('{apiKeyId}')) codes.push('api_key_not_found')
  if (query || body) codes.push('invalid_input')
  if (isOnce) {
    codes.push('already_created', 'request_under_way')
    codes.push('idempotency_key_reused', 'malformed_idempotency_key')
  }
  // Only members of an organization may have less access than its keys.
  const own = refusals.filter(
    (code) => code !== 'exceeds_access' || router === 'organizationRouter',
  )
  return [...codes, ...own]
}

/** Returns all refusals that a guard may answer. */
export function refusalsOfGuards(
  settings: Pick<
    Settings,
    'insecureTransport' | 'environments' | 'resources' | 'redis' | 'grantable'
  >,
  permissions: readonly string[],
): ErrorCode[] {
  return [
    ...(settings.insecureTransport === 'allow' ? [] : (['insecure_transport'] as const)),
    'malformed_credential',
    'multiple_credentials',
    'missing_credential',
    'invalid_api_key',
    ...(permissions.length > 0 ? (['missing_permission'] as const) : []),
    'address_not_allowed',
    ...(settings.environments.names.length > 0 ? (['environment_not_allowed'] as const) : []),
    ...(settings.resources.size > 0 ? (['resource_not_allowed'] as const) : []),
    'rate_limited',
    'too_many_attempts',
    'database_unavailable',
    'too_many_lookups',
    ...(settings.redis ? (['limiter_unavailable'] as const) : []),
    ...(settings.grantable ? (['grantable_unavailable'] as const) : []),
  ]
}
