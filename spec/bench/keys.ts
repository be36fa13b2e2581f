import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'

import { createSecretFormat, type MintedSecret } from '../../lib/keys/secret'

export type MintedKey = MintedSecret

/** The prefix of the keys of all variants. */
export const keyPrefix = 'agpt'

export function mintKeys(count: number, secrets: readonly string[] = []): MintedKey[] {
  const format = createSecretFormat({ keyPrefixes: [keyPrefix], secrets, acceptUnkeyed: false })
  return Array.from({ length: count }, () => format.mint(keyPrefix))
}

/** Tokens of another kind, as long as keys of the library. */
export function inventTokens(count: number): string[] {
  return Array.from({ length: count }, () => randomBytes(42).toString('base64url'))
}

/** A forged key: the form is right, and the check is made with another secret. */
export function forgeKeys(count: number): string[] {
  return plainTexts(mintKeys(count, [randomBytes(32).toString('base64')]))
}

export function plainTexts(keys: readonly MintedKey[]): string[] {
  return keys.map(({ plainTextKey }) => plainTextKey)
}

export async function writeTokens(file: string, tokens: readonly string[]): Promise<string> {
  await writeFile(file, tokens.join('\n'))
  return file
}
