import type { Owner } from './owner'

/** The names and types that an app has made of its options. */
export interface App {
  permission: string
  owner: Owner
  /** `never` for an app without environments. */
  environment: string
  /** The types of resources; `never` for an app without resources. */
  resource: string
}

/** Any app, with the members that all apps have in common. A function can take the `AnyApiKeys` or `VerifiedApiKey` of any app. */
export interface AnyApp extends App {
  environment: never
  resource: never
}

/** The members that a type has only if the app has names of a kind, for example environments. */
export type If<Names extends string, Members> = [Names] extends [never] ? unknown : Members

/** The option that says which keys a guard or a call takes, in an app with environments. */
export type EnvironmentOption<Environment extends string> = If<
  Environment,
  {
    /**
     * The environment, or several, whose keys may pass.
     *
     * @default the option `acceptedEnvironments` of `createApiKeys`
     */
    environment?: Environment | readonly Environment[] | undefined
  }
>

/** The environment of a new key, which a call has to name if the app has several. */
export type NewKeyEnvironment<Environment extends string> = If<
  Environment,
  IsUnion<Environment> extends true
    ? { environment: Environment }
    : { environment?: Environment | undefined }
>

type IsUnion<Names, Name = Names> = Name extends unknown
  ? [Names] extends [Name]
    ? false
    : true
  : never
