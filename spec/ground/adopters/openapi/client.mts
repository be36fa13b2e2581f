import createClient from 'openapi-fetch'

import type { paths } from './api-keys.d.ts'

const [, , baseUrl = '', cookie = ''] = process.argv
const client = createClient<paths>({ baseUrl, headers: { Cookie: cookie } })

/** Ends the program unless a claim holds. */
function claim(holds: boolean, claim: string): asserts holds {
  if (!holds) throw new Error(claim)
}

const created = await client.POST('/', {
  body: { name: 'CI', permissions: ['READ_GRAPH'], environment: 'live' },
})
claim(created.data !== undefined, 'the key is created')
const { apiKey, plainTextKey } = created.data
claim(plainTextKey.startsWith(apiKey.prefix), 'the answer has the key')
claim(apiKey.owner.type === 'user', 'the key is of the user')

const path = { apiKeyId: apiKey.id }
const shown = await client.GET('/{apiKeyId}', { params: { path } })
claim(shown.data?.status === 'ACTIVE', 'the key is shown')

const listed = await client.GET('/', {
  params: { query: { status: ['ACTIVE', 'SUSPENDED'], isExpired: false, limit: 5 } },
})
claim(listed.data?.apiKeys.some(({ id }) => id === apiKey.id) === true, 'the key is listed')

const replaced = await client.PUT('/{apiKeyId}/permissions', {
  params: { path },
  body: { permissions: ['READ_BLOCK'] },
})
claim(replaced.data?.permissions.join() === 'READ_BLOCK', 'the permissions are replaced')

// @ts-expect-error the app has no such permission
const unknown = await client.POST('/', { body: { name: 'CI', permissions: ['FLY'] } })
claim(unknown.error?.code === 'invalid_input', 'an unknown permission is refused')
claim(unknown.error.errors[0]?.pointer === '#/permissions/0', 'the refusal says where')

const revoked = await client.DELETE('/{apiKeyId}', { params: { path }, body: { reason: 'Over.' } })
claim(revoked.data?.status === 'REVOKED', 'the key is revoked')

const late = await client.POST('/{apiKeyId}/rotate', { params: { path } })
claim(late.error?.code === 'api_key_revoked', 'a revoked key is not rotated')

console.log('the client has talked to the app')
