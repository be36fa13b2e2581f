import type { ImportedKeys } from '../importing/imported-keys'
import { asSent, ellipsis, shownLength, type SentKey } from '../keys/secret'

/** Finds the keys of other systems in headers. They have no marker, so each token is compared with what the sources accept. */
export type ImportedTokens = ReturnType<typeof createImportedTokens>

/** A token that `mask` has masked. */
const masked = /^\S{1,6}\.\.\.$/

/** The tokens in the value of a header. */
const tokens = /[^\s,;"']+/g

const basic = /^basic +/i

/** Makes the part that finds the keys of other systems in headers, and masks them. */
export function createImportedTokens({ schemes, hasShape }: ImportedKeys) {
  const names = schemes.filter((name) => name.toLowerCase() !== 'basic').map(escape)
  const scheme = names.length > 0 ? new RegExp(`^(?:${names.join('|')}) +`, 'i') : undefined
  const takesBasic = names.length < schemes.length

  /** Returns the user of Basic credentials (RFC 7617, section 2), if it is a key; else `undefined`. */
  function keyInBasic(value: string): string | undefined {
    const [prefix] = (takesBasic ? basic.exec(value) : null) ?? []
    if (prefix === undefined) return undefined
    const [user = ''] = Buffer.from(value.slice(prefix.length), 'base64')
      .toString('latin1')
      .split(':')
    return hasShape(user) ? user : undefined
  }

  function mask(value: string): string {
    const user = keyInBasic(value)
    if (user !== undefined) return `Basic ${maskToken(user)}`
    return value.replace(tokens, (token) => (hasShape(token) ? maskToken(token) : token))
  }

  return {
    hasShape,
    mask,
    isMasked: (token: string) => masked.test(token),

    /** True if a value has a token that is masked, or is to be masked. */
    fits(value: string): boolean {
      if (keyInBasic(value) !== undefined) return true
      return value.match(tokens)?.some((token) => masked.test(token) || hasShape(token)) ?? false
    },

    /** Returns the scheme of a source with which an `Authorization` begins, and the spaces behind it. */
    schemeOf: (value: string) => scheme?.exec(value) ?? null,

    /** Returns the key in Basic credentials; `undefined` if there is none. */
    readBasic(value: string): SentKey | undefined {
      const user = keyInBasic(value)
      return user === undefined ? undefined : asSent(user)
    },
  }
}

/** Returns what lists show of a key. */
export function maskToken(token: string): string {
  return token.slice(0, shownLength) + ellipsis
}

function escape(name: string): string {
  return name.replaceAll(/[.*+?^$|]/g, String.raw`\$&`)
}

/** Returns the headers besides `Authorization` that may carry a key, in lower case. */
export function headersWithKeys(
  header: string | undefined,
  imported: ImportedKeys | undefined,
): string[] {
  const all = [header ?? [], imported?.headers ?? []].flat()
  return [...new Set(all)]
}
