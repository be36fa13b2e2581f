/** The codes of all warnings. Each has its row in lib/README.md, under "Warnings". */
export const warningCodes = [
  'API_KEYS_ADDRESS_UNKNOWN',
  'API_KEYS_DATABASE_UNAVAILABLE',
  'API_KEYS_ENVIRONMENT_MISMATCH',
  'API_KEYS_HEAD_HIDDEN',
  'API_KEYS_INSECURE_PROXY',
  'API_KEYS_LISTEN_UNHEARD',
  'API_KEYS_LOG_NOT_PRUNED',
  'API_KEYS_OPEN_TABLES',
  'API_KEYS_PREFIX_UNKNOWN',
  'API_KEYS_REDIS_NOT_CONNECTED',
  'API_KEYS_SECRET_UNKNOWN',
  'API_KEYS_STATEMENT_TIMEOUT',
  'API_KEYS_SUBSCRIBER',
  'API_KEYS_TOO_FEW_CONNECTIONS',
  'API_KEYS_TRAIL_SECRET_UNKNOWN',
  'API_KEYS_TRIGGERS_MENDED',
  'API_KEYS_TRUST_PROXY',
  'API_KEYS_USER_ID',
] as const

/** The code of a warning. */
export type WarningCode = (typeof warningCodes)[number]

const given = new Set<string>()

/**
 * Warns the developer through `process.emitWarning`, once per process and message. Node prints it on standard error, unless
 * the code is disabled (`--disable-warning`). A message states the fault and the remedy. It has no secret.
 */
export function warn(code: WarningCode, message: string) {
  const line = `${code} ${message}`
  if (given.has(line)) return
  given.add(line)

  process.emitWarning(message, { type: 'ApiKeysWarning', code })
}
