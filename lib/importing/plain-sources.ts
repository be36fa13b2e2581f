import { plain } from './digests'
import { columnOf, commonFields, fromJson, lost, readRow, storedIn, toList, toText } from './rows'
import type { ImportSource } from './source'

/** How many characters of the end of a key records show. Both systems show as few. */
const shownLength = 4

function shownOf(key: string) {
  return { postfix: key.slice(-shownLength) }
}

/**
 * Static tokens of Directus: a user has one, with the permissions of the user's role. `accepts` is for tokens that were set by hand. The
 * rows are those of users who have a token.
 */
export function directus({
  accepts = /^[A-Za-z0-9_-]{32}$/,
}: { accepts?: RegExp } = {}): ImportSource {
  return {
    name: 'directus',
    accepts,
    digest: plain,
    readRow: (row) =>
      readRow(
        {
          stored: storedIn(row, 'token'),
          userId: toText(columnOf(row, 'id')),
          status: (columnOf(row, 'status') ?? 'active') === 'active' ? 'ACTIVE' : 'SUSPENDED',
          shown: shownOf(storedIn(row, 'token')),
        },
        [lost(row, 'role', 'says what the user may do, and has to be given as permissions')],
      ),
  }
}

/** The shape of a JSON Web Token of n8n's public API: its header, a user's id, its issuer and its audience stand at fixed places. */
const token =
  'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9\\.eyJzdWIiOi[\\w-]{50}LCJpc3MiOiJuOG4iLCJhdWQiOiJwdWJsaWMtYXBp[\\w-]{20,140}\\.[\\w-]{43}'

/** API keys of n8n, also of those from before they were JSON Web Tokens. Expiry stands in the token alone. */
export function n8n(): ImportSource {
  return {
    name: 'n8n',
    accepts: new RegExp(`^(?:${token}|n8n_api_[0-9a-f]{80})$`),
    digest: plain,
    headers: ['x-n8n-api-key'],
    readRow(row) {
      const key = storedIn(row, 'apiKey')
      return readRow({
        ...commonFields(row),
        stored: key,
        name: toText(columnOf(row, 'label')),
        userId: toText(columnOf(row, 'userId')),
        permissions: toList(columnOf(row, 'scopes')),
        expiresAt: expiryOf(key),
        shown: shownOf(key),
      })
    },
  }
}

/** Returns the time in the claim `exp` of a JSON Web Token, in seconds since 1970; `null` for a text without it. */
function expiryOf(key: string): Date | null {
  const [, payload = ''] = key.split('.')
  const { exp } = Object(fromJson(Buffer.from(payload, 'base64url').toString())) as {
    exp?: unknown
  }
  return typeof exp === 'number' ? new Date(exp * 1_000) : null
}
