import type { ApiKeys, NewApiKey } from '../../lib'
import type { Options, Permission, TestApiKeys, TestApp, User } from './app'

/** What these options make of an app. */
export interface EnvironmentApp extends Omit<TestApp, 'environment'> {
  environment: 'live' | 'test'
}

/** The environments of an app. */
export const environments = {
  live: { prefix: 'acme_live', formerPrefixes: ['acme'] },
  test: { prefix: 'acme_test', formerPrefixes: ['oldtest'] },
}

/** The options of an app with environments, in place of the prefix that the apps of other specs have. */
export function environmentOptions(options: object = {}): Options {
  const given = { keyPrefix: undefined, environments, acceptedEnvironments: ['live'], ...options }
  // The type of the options is that of an app without environments.
  return given as unknown as Options
}

/** Returns the same instance with the types of an app with environments. */
export function withEnvironments(apiKeys: TestApiKeys) {
  return apiKeys as unknown as ApiKeys<EnvironmentApp, User>
}

/** The input for a new key of an environment. */
export function newKeyOf(
  environment: 'live' | 'test',
  wishes: Partial<Extract<NewApiKey<EnvironmentApp>, { userId: unknown }>> = {},
) {
  const permissions: Permission[] = ['READ_GRAPH']
  return { userId: 'alice', name: 'Deployment', permissions, environment, ...wishes }
}
