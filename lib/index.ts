export type { AnyApiKeys, ApiKeys } from './api'
export { createApiKeys } from './create-api-keys'
export {
  ApiKeysError,
  InvalidApiKeyError,
  AlreadyCreatedError,
  InvalidInputError,
  MethodNotAllowedError,
  MissingPermissionError,
  RateLimitedError,
  TooManyApiKeysError,
  TooManyAttemptsError,
  TooManyReportsError,
  type ErrorCode,
  type InputFault,
  type InvalidReason,
  type LimitState,
} from './errors'
export type { EncodedDigest, KeyDigest } from './importing/digests'
export type { ImportReport } from './importing/report'
export type { SaltedDigest, SaltedValue } from './importing/salted'
export type { ImportRow, ImportSource, ReadRow, UnmappedField } from './importing/source'
export { digests, sources } from './importing/sources'
export type { ImportOptions } from './lifecycle/import-options'
export type { ConsoleOptions } from './console/options'
export type { Demand } from './http/demand'
export type { Explanation, ExplainOptions } from './http/explain'
export type { Condition } from './http/explain-findings'
export type {
  AnyRequest,
  AuthenticateOptions,
  GuardOptions,
  RequestOptions,
} from './http/guard-options'
export type { McpAuthInfo } from './http/auth-info'
export type { Guard } from './http/guards'
export type { Access, AdminRouterOptions, OpenApiOption, RouterOptions } from './http/access'
export type { GithubOptions, GitlabOptions, LeakRouterOptions } from './leaks/options'
export type { Scanner } from './leaks/scanner-rules'
export type { Introspection, IntrospectOptions, TokenRouterOptions } from './tokens/options'
export type { McpErrors } from './tokens/mcp-errors'
export type { McpVerifier, McpVerifierOptions } from './tokens/mcp-verifier'
export type { ApiKeyStrategy } from './http/strategy'
export type { InstrumentOptions } from './metrics/options'
export type {
  DocumentOptions,
  GuardsOptions,
  OpenApiDocument,
  OpenApiObject,
  OpenApiOptions,
  TokenRoutes,
} from './openapi/options'
export type { ApiKeyEvent } from './audit/list-entries'
export type { AuditHead } from './audit/head'
export type { AuditFault } from './audit/faults'
export type { AuditVerification, VerificationOptions } from './audit/verify'
export type {
  ApiKeyChanged,
  ApiKeyNotices,
  Listener,
  OwnerChanged,
  RequestDenied,
} from './keys/emitter'
export type {
  ApiKeyFilter,
  ChangeOptions,
  EventFilter,
  ManyKeys,
  PermissionOptions,
  PruneOptions,
  ReadOptions,
  EraseOptions,
  RestrictOptions,
  RotateOptions,
  UnusedOptions,
  UsageFilter,
  UsageQuery,
  OwnerChangeOptions,
} from './lifecycle/types'
export type { GrantableContext } from './keys/grantable'
export type { Limit, LimitOverrides, Limits } from './keys/limits'
export type { JsonValue, Metadata } from './keys/metadata'
export type { PermissionDescription } from './keys/permission-options'
export type { AnyApp, App } from './keys/app'
export type { NamedOwner } from './keys/owner-names'
export type {
  AnyId,
  OrganizationOwner,
  Owner,
  OwnerOf,
  ServiceOwner,
  UserOwner,
} from './keys/owner'
export type {
  Actor,
  ApiKeyChanges,
  ApiKeyRecord,
  NewApiKey,
  NewKeyFields,
  RecordFields,
} from './keys/record'
export type { MayBind, RequestedResources, Resources } from './keys/resources'
export type { Erased } from './lifecycle/erase-owner'
export type { KeyUsage, TotalUsage, Usage, UsageCounts, UsageEntry } from './usage/report'
export type {
  ApiKeysOptions,
  EnvironmentOptions,
  AppRequest,
  AppResponse,
  RedisClient,
  SignedInUser,
  IdOf,
  MaxKeys,
  OwnersIn,
} from './options'
export type { FeedState } from './freshness/lease'
export type { AuditHealth } from './audit/own-entries'
export type { UsageHealth } from './usage/recorder'
export type { Health, HealthQuestion, LivingKeys } from './verification/health'
export type { LivingImports } from './verification/living-imports'
export type { RefusedKeys } from './verification/refused-keys'
export type { Closable } from './keys/closable'
export type { UnknownPermission } from './verification/unknown-permissions'
export type { VerifiedApiKey, VerifiedFields } from './verification/verified-key'
export type { Verdict, VerifyOptions } from './verification/verify'
export { migrations, type Migration } from '../migrations'
export type { Status } from '../models/api-key'
export type { ActorType, EventAction } from '../models/api-key-event'
export type { StorageOptions, UserIdType } from '../models/storage-options'
