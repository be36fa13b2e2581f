// These types are among the types of the package.

/** A JSON object of an OpenAPI document, for example a Server Object or a Security Scheme Object. */
export type OpenApiObject = Readonly<Record<string, unknown>>

/** An OpenAPI 3.1 document. */
export interface OpenApiDocument {
  openapi: string
  info: { title: string; version: string; [member: string]: unknown }
  servers?: OpenApiObject[]
  paths: Record<string, Record<string, unknown>>
  components: Record<string, Record<string, unknown>>
  [member: string]: unknown
}

/** The options that say what a document says about the app. */
export interface DocumentOptions {
  /** How users sign in to the app: a Security Scheme Object. Without it, the document does not say. */
  signIn?: OpenApiObject | undefined
  /** Members of the Info Object, over the members that it has by default: `title` and `version`. */
  info?: OpenApiObject | undefined
}

/** The options of `openApi`. */
export interface OpenApiOptions extends DocumentOptions {
  /** Server Objects, for example `[{ url: 'https://api.example.com' }]`. */
  servers?: readonly OpenApiObject[] | undefined
  /**
   * The path at which the app mounts `router()`; `false` if it does not.
   *
   * @default '/api-keys' if the app has the option `currentUser`
   */
  router?: string | false | undefined
  /**
   * The path at which the app mounts `adminRouter()`; `false` if it does not.
   *
   * @default '/admin/api-keys' if the app has the option `isAdmin`
   */
  adminRouter?: string | false | undefined
  /**
   * The path at which the app mounts `router({ organization })`, with its parameters in braces, for example
   * `/organizations/{organizationId}/api-keys`.
   *
   * @default false
   */
  organizationRouter?: string | false | undefined
  /**
   * The path at which the app mounts `tokenRouter()`, or that path and which of its routes there are.
   *
   * @default false
   */
  tokenRouter?: string | TokenRoutes | false | undefined
}

/** Which routes of `tokenRouter()` an app has. */
export interface TokenRoutes {
  /** The path at which the app mounts the router. */
  path: string
  /** @default true */
  introspect?: boolean | undefined
  /** @default true */
  revoke?: boolean | undefined
}

/** The options of `documentGuards`. */
export interface GuardsOptions {
  /**
   * The name of the security scheme by which operations demand an API key.
   *
   * @default 'apiKey'
   */
  scheme?: string | undefined
}
