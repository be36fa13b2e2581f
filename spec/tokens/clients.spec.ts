import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'

import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'

import { forgeKey } from '../support/keys'
import { useWorld } from '../support/world'

const world = useWorld({
  routes: (app, keys) => {
    app.use('/oauth', keys.tokenRouter({ introspect: { permission: 'EXECUTE_BLOCK' } }))
  },
})
const { apiKeys, createKey } = world

let server: Server
let issuer: string
/** The key of the server that introspects other keys. */
let gateway: string

beforeAll(async () => {
  server = world.app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // The address of a TCP server is never the name of a pipe.
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const key = { userId: 'gateway', name: 'Gateway', permissions: ['EXECUTE_BLOCK'] as const }
  gateway = (await apiKeys.create({ ...key, permissions: [...key.permissions] })).plainTextKey
})

afterAll(() => server.close())

/** The metadata that a client of the endpoints needs (RFC 8414, section 2). */
function metadata() {
  return {
    issuer,
    introspection_endpoint: `${issuer}/oauth/introspect`,
    revocation_endpoint: `${issuer}/oauth/revoke`,
  }
}

/** Authenticates a client by a key in place of an id and a secret. */
function withKey(key: string) {
  return (_server: unknown, _client: unknown, _body: unknown, headers: Headers): void => {
    headers.set('authorization', `Bearer ${key}`)
  }
}

type AuthOf = (key: string) => oauth.ClientAuth

const insecure = { [oauth.allowInsecureRequests]: true }

describe('oauth4webapi', () => {
  const self = { client_id: 'gateway' }

  async function introspect(token: string, key = gateway, authOf: AuthOf = withKey) {
    const response = await oauth.introspectionRequest(
      metadata(),
      self,
      authOf(key),
      token,
      insecure,
    )
    return oauth.processIntrospectionResponse(metadata(), self, response)
  }

  async function revoke(token: string, auth = oauth.None()) {
    const response = await oauth.revocationRequest(metadata(), self, auth, token, insecure)
    return oauth.processRevocationResponse(response)
  }

  it('introspects a key, revokes it, and introspects it again', async () => {
    const { id, plainTextKey } = await createKey()

    expect(await introspect(plainTextKey)).toMatchObject({
      active: true,
      scope: 'READ_GRAPH',
      jti: id,
    })
    expect(await revoke(plainTextKey)).toBeUndefined()
    expect(await introspect(plainTextKey)).toEqual({ active: false })
    expect(await revoke(plainTextKey)).toBeUndefined()
    expect(await revoke(forgeKey())).toBeUndefined()
  })

  it('does so with a key as the secret of a client', async () => {
    const { id, plainTextKey } = await createKey()
    const authOf = oauth.ClientSecretBasic

    expect(await introspect(plainTextKey, gateway, authOf)).toMatchObject({ active: true, jti: id })
    expect(await revoke(plainTextKey, authOf(gateway))).toBeUndefined()
    expect(await introspect(plainTextKey, gateway, authOf)).toEqual({ active: false })
    await expect(introspect('x', forgeKey(), authOf)).rejects.toMatchObject({
      code: 'OAUTH_WWW_AUTHENTICATE_CHALLENGE',
      status: 401,
      cause: [{ scheme: 'basic', parameters: { realm: 'api' } }],
    })
  })

  it('names the client and its permission as the reason of a refusal', async () => {
    const { plainTextKey } = await createKey()

    await expect(introspect('x', plainTextKey)).rejects.toMatchObject({
      code: 'OAUTH_WWW_AUTHENTICATE_CHALLENGE',
      cause: [
        { scheme: 'bearer', parameters: { error: 'insufficient_scope', scope: 'EXECUTE_BLOCK' } },
      ],
    })
    await expect(introspect('x', forgeKey())).rejects.toMatchObject({
      cause: [{ parameters: { error: 'invalid_token' } }],
    })
  })

  it('reads the error of a request that is malformed', async () => {
    await expect(introspect(' '.repeat(33_000))).rejects.toMatchObject({
      code: 'OAUTH_RESPONSE_BODY_ERROR',
      error: 'invalid_request',
      status: 413,
    })
    const twice = await fetch(metadata().revocation_endpoint, {
      method: 'POST',
      body: new URLSearchParams([
        ['token', 'x'],
        ['token', 'y'],
      ]),
    })
    await expect(oauth.processRevocationResponse(twice)).rejects.toMatchObject({
      error: 'invalid_request',
      error_description: expect.stringContaining('each parameter once'),
    })
  })
})

/** The configuration of a client that was given the metadata, without discovery. */
function configurationOf(auth: openid.ClientAuth) {
  const configuration = new openid.Configuration(metadata(), 'gateway', undefined, auth)
  openid.allowInsecureRequests(configuration)
  return configuration
}

describe('openid-client', () => {
  it('introspects a key, revokes it, and introspects it again', async () => {
    const { id, plainTextKey } = await createKey()
    const resourceServer = configurationOf(withKey(gateway))
    const owner = configurationOf(openid.None())

    const found = await openid.tokenIntrospection(resourceServer, plainTextKey)
    expect(found).toMatchObject({ active: true, client_id: id, sub: 'alice', token_type: 'Bearer' })

    const hint = { token_type_hint: 'access_token' }
    expect(await openid.tokenRevocation(owner, plainTextKey, hint)).toBeUndefined()
    expect(await openid.tokenIntrospection(resourceServer, plainTextKey, hint)).toEqual({
      active: false,
    })
  })

  it('does so with a key as the secret of a client', async () => {
    const { id, plainTextKey } = await createKey()
    const client = configurationOf(openid.ClientSecretBasic(gateway))

    expect(await openid.tokenIntrospection(client, plainTextKey)).toMatchObject({ jti: id })
    expect(await openid.tokenRevocation(client, plainTextKey)).toBeUndefined()
    expect(await openid.tokenIntrospection(client, plainTextKey)).toEqual({ active: false })
    const stranger = configurationOf(openid.ClientSecretBasic(forgeKey()))
    await expect(openid.tokenIntrospection(stranger, 'x')).rejects.toMatchObject({
      cause: [{ scheme: 'basic' }],
    })
  })

  it('sends the address of its own client along', async () => {
    const { plainTextKey } = await createKey({ allowedIps: ['203.0.113.7'] })
    const resourceServer = configurationOf(withKey(gateway))

    const from = async (ip: string) =>
      (await openid.tokenIntrospection(resourceServer, plainTextKey, { ip })).active

    expect([await from('203.0.113.7'), await from('203.0.113.8')]).toEqual([true, false])
  })
})
