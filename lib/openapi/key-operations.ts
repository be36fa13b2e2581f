import { creation, permissions, policies, type Operation } from './operation'

/** The routes of one key, which all routers have. */
export const ofOneKey: readonly Operation[] = [
  {
    method: 'get',
    path: '/{apiKeyId}',
    name: 'getApiKey',
    summary: 'Shows an API key',
    answer: 'ApiKey',
  },
  {
    method: 'patch',
    path: '/{apiKeyId}',
    name: 'updateApiKey',
    summary: 'Changes fields of an API key',
    query: 'nothing',
    body: 'changes',
    isBodyOptional: true,
    answer: 'ApiKey',
    refusals: ['api_key_revoked', 'too_many_api_keys', 'exceeds_access'],
  },
  {
    method: 'delete',
    path: '/{apiKeyId}',
    name: 'revokeApiKey',
    summary: 'Revokes an API key for ever; its record stays',
    query: 'everywhere',
    body: 'explanation',
    isBodyOptional: true,
    answer: 'ApiKey',
  },
  {
    method: 'put',
    path: '/{apiKeyId}/permissions',
    name: 'replacePermissions',
    summary: 'Replaces the permissions of an API key',
    query: 'everywhere',
    body: 'permissionSet',
    answer: 'ApiKey',
    refusals: ['api_key_revoked', ...policies],
  },
  {
    method: 'post',
    path: '/{apiKeyId}/suspend',
    name: 'suspendApiKey',
    summary: 'Refuses an API key until it is reactivated',
    query: 'everywhere',
    body: 'explanation',
    isBodyOptional: true,
    answer: 'ApiKey',
    refusals: ['api_key_revoked'],
  },
  {
    method: 'post',
    path: '/{apiKeyId}/reactivate',
    name: 'reactivateApiKey',
    summary: 'Ends the suspension of an API key, or its expiry for want of use',
    query: 'nothing',
    body: 'explanation',
    isBodyOptional: true,
    answer: 'ApiKey',
    refusals: ['api_key_revoked', 'api_key_exposed', 'exceeds_access'],
  },
  {
    method: 'post',
    path: '/{apiKeyId}/rotate',
    name: 'rotateApiKey',
    summary: 'Gives an API key a new secret; the old secret works on for a grace period',
    query: 'nothing',
    body: 'rotationWish',
    isBodyOptional: true,
    answer: 'NewSecret',
    isOnce: true,
    refusals: [
      'api_key_revoked',
      'api_key_suspended',
      'api_key_expired',
      'unknown_environment',
      'owner_suspended',
      'exceeds_access',
    ],
  },
  {
    method: 'delete',
    path: '/{apiKeyId}/rotation',
    name: 'endRotation',
    summary: 'Ends the old secret of an API key before its time',
    query: 'everywhere',
    body: 'explanation',
    isBodyOptional: true,
    answer: 'ApiKey',
    refusals: ['api_key_revoked'],
  },
  {
    method: 'get',
    path: '/{apiKeyId}/events',
    name: 'listApiKeyEvents',
    summary: 'Lists the audit trail of an API key, newest first',
    query: 'eventPage',
    answer: 'EventPage',
  },
  {
    method: 'get',
    path: '/{apiKeyId}/usage',
    name: 'getApiKeyUsage',
    summary: 'Reports how often an API key was used',
    query: 'usageQuery',
    answer: 'Usage',
  },
]

/** Routes of the keys of one owner. A change is not reported to all processes before it is answered: that is for administrators. */
export const ofOneOwner: readonly Operation[] = [
  {
    method: 'get',
    path: '/',
    name: 'listApiKeys',
    summary: 'Lists API keys, a page at a time',
    query: 'ownList',
    answer: 'ApiKeyPage',
  },
  { ...creation, body: 'newKey' },
  {
    ...permissions,
    summary: 'Lists the permissions that you may give to API keys',
    query: 'nothing',
  },
  ...ofOneKey.map(withoutWaiting),
]

/** Only administrators may ask that a change is answered when all processes honour it. */
function withoutWaiting(operation: Operation): Operation {
  const query = operation.query === 'everywhere' ? 'nothing' : operation.query
  return query ? { ...operation, query } : operation
}
