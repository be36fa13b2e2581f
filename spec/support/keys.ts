import { randomUUID } from 'node:crypto'

import { InvalidInputError, type ApiKeyRecord, type NewApiKey, type Status } from '../../lib'
import { createBindingsReader } from '../../lib/keys/resources'
import { createSecretFormat } from '../../lib/keys/secret'
import type { TestApp, TestApiKeys } from './app'
import type { Caller } from './http'

/** A key of a user, by the short form of the owner. */
type KeyOfUser = Extract<NewApiKey<TestApp>, { userId: unknown }>

type Wishes = Partial<KeyOfUser>

/** The bindings of a key that is not bound to resources. */
export const unbound = createBindingsReader([])(null)

/** The input for a new key, with the fields that a spec names. */
export function newKey(wishes: Wishes = {}): KeyOfUser {
  return { userId: 'alice', name: 'Deployment', permissions: ['READ_GRAPH'], ...wishes }
}

/** Creates a key and brings it into a status. */
export async function createKey(
  apiKeys: TestApiKeys,
  { status, ...wishes }: Wishes & { status?: Status } = {},
): Promise<ApiKeyRecord<TestApp>> {
  const { apiKey } = await apiKeys.create(newKey(wishes))
  return bringInto(status, apiKey, apiKeys)
}

/** Creates a key over HTTP, and returns the record of the answer. */
export async function postKey(caller: Caller, input: object = {}) {
  const { body } = await caller
    .post('/api-keys', { name: 'CI', permissions: ['READ_GRAPH'], ...input })
    .expect(201)
  return body.apiKey as { id: string } & Record<string, unknown>
}

/** Suspends or revokes a new key, if the status demands it. */
export async function bringInto(
  status: Status | undefined,
  apiKey: ApiKeyRecord<TestApp>,
  apiKeys: TestApiKeys,
) {
  if (status === 'SUSPENDED') return apiKeys.suspend(apiKey.id)
  if (status === 'REVOKED') return apiKeys.revoke(apiKey.id)
  return apiKey
}

/** Returns a key that was never created, of the form that keys have. */
export function forgeKey(keyPrefix = 'agpt') {
  const format = createSecretFormat({
    keyPrefixes: [keyPrefix],
    secrets: [],
    acceptUnkeyed: false,
  })
  return format.mint(keyPrefix).plainTextKey
}

/** Returns the name of a user without keys. */
export function newUser() {
  return `user-${randomUUID()}`
}

/** Returns the faults with which a call is refused. */
export async function faultsOf(call: Promise<unknown>) {
  const error: unknown = await call.catch((error: unknown) => error)
  if (!(error instanceof InvalidInputError)) throw new Error('no fault was found', { cause: error })

  return error.errors
}
