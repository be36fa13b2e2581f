import type { ApiKeyRecord } from '../keys/record'

/** The fields of a key that only some apps have. */
export interface AppFields {
  /** `null` without environments, and for a key from before there were any. */
  environment: string | null
  /** The ids of the resources to which the key is bound, by their types; `null` for a key that is not bound. */
  resources: Readonly<Record<string, readonly string[]>> | null
}

/** Returns the fields of a key that only some apps have. Their type is known to the app, but not here. */
export function appFieldsOf(apiKey: ApiKeyRecord): AppFields {
  const { environment = null, resources = null } = apiKey as Partial<AppFields>
  return { environment, resources }
}
