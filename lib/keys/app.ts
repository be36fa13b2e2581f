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

/** Any app, with the members that all apps have in common. A function can take the `ApiKeys` or `VerifiedApiKey` of any app. */
export interface AnyApp extends App {
  environment: never
  resource: never
}

/** The members that a type has only if the app has names of a kind, for example environments. */
export type If<Names extends string, Members> = [Names] extends [never] ? unknown : Members
