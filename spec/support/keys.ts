import { InvalidInputError, type ApiKeyRecord, type NewApiKey, type Status } from '../../lib'
import type { Permission, TestApiKeys } from './app'

type Wishes = Partial<NewApiKey<Permission>>

/** A key to be made, with what a spec wants of it. */
export function newKey(wishes: Wishes = {}): NewApiKey<Permission> {
  return { userId: 'alice', name: 'Deployment', permissions: ['READ_GRAPH'], ...wishes }
}

/** Makes a key and brings it into the status that a spec wants it in. */
export async function createKey(
  apiKeys: TestApiKeys,
  { status, ...wishes }: Wishes & { status?: Status } = {},
): Promise<ApiKeyRecord<Permission, string>> {
  const { apiKey } = await apiKeys.create(newKey(wishes))
  if (status === 'SUSPENDED') return apiKeys.suspend(apiKey.id)
  if (status === 'REVOKED') return apiKeys.revoke(apiKey.id)
  return apiKey
}

/** The faults that a call is refused for. */
export async function faultsOf(call: Promise<unknown>) {
  const error: unknown = await call.catch((error: unknown) => error)
  if (!(error instanceof InvalidInputError)) throw new Error('no fault was found', { cause: error })

  return error.errors
}
