import { createHash } from 'node:crypto'

import type { Status } from '../../models/api-key'
import type { LimitOverrides } from '../keys/limits'
import type { Metadata } from '../keys/metadata'
import type { AnyId, Owner } from '../keys/owner'
import type { KeyDigest } from './digests'
import type { SaltedDigest } from './salted'

/** A system whose keys the app accepts, and how that system stores them. */
export interface ImportSource {
  /** For example `better-auth`: at most 32 lower-case letters, digits and dashes, with a letter first. Records show it. */
  name: string
  /** Matches each key of the system from its start to its end, and as few other texts as possible. */
  accepts: RegExp
  /** The value that the system stores of a key. Keys with a salt get this digest at their first use. */
  digest: KeyDigest
  /** The value that the system stores of a key with a salt, each key with its own. It needs `locate`. */
  salted?: SaltedDigest | undefined
  /** Returns the part of a key that the digest covers; by default the whole key. */
  digested?: ((key: string) => string) | undefined
  /** Returns the part of a key that names it and is not covered by the digest. The rows have it as `locator`. */
  locate?: ((key: string) => string) | undefined
  /** Returns true if the check of a key is right, if its keys have one. */
  check?: ((key: string) => boolean) | undefined
  /**
   * The schemes of `Authorization` with which clients send such keys, besides Bearer. With `Basic`, the user is the key.
   *
   * @default []
   */
  schemes?: readonly string[] | undefined
  /**
   * Other headers in which clients send such keys.
   *
   * @default []
   */
  headers?: readonly string[] | undefined
  /** The environment of all keys of the source, in an app with environments. */
  environment?: string | undefined
  /** Reads a row of the system's own table. */
  readRow?: ((row: Readonly<Record<string, unknown>>) => ReadRow) | undefined
}

/** A key of another system. Times are dates, RFC 3339 text, or `null`. */
export interface ImportRow {
  /** The text that the system stores of the key. */
  stored: string
  /** The salt, if it does not stand in that text. */
  salt?: string | undefined
  /** The part of the key that names it, if the source has one. */
  locator?: string | undefined
  owner?: Owner | undefined
  /** The short form of `owner` for a user. */
  userId?: AnyId | undefined
  name?: string | null | undefined
  description?: string | null | undefined
  permissions?: readonly string[] | undefined
  status?: Status | undefined
  createdAt?: Date | string | null | undefined
  expiresAt?: Date | string | null | undefined
  lastUsedAt?: Date | string | null | undefined
  revokedAt?: Date | string | null | undefined
  allowedIps?: readonly string[] | null | undefined
  metadata?: Metadata | undefined
  limits?: LimitOverrides | null | undefined
  resources?: Readonly<Record<string, readonly string[]>> | null | undefined
  /** The two ends of the key, as far as they are known. Of the start, six characters are kept, and eight of the end. */
  shown?: { prefix?: string | null | undefined; postfix?: string | null | undefined } | undefined
}

/** A row of another system's table, as far as it can be imported. */
export interface ReadRow {
  row: ImportRow
  /** The other values of the row, which are not imported. */
  unmapped: readonly UnmappedField[]
}

/** A field of another system that is not imported. */
export interface UnmappedField {
  field: string
  message: string
}

/** The remainders of CRC-32, by the byte. */
const remainders = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte
  for (let bit = 0; bit < 8; bit++) {
    remainder = (remainder >>> 1) ^ (remainder & 1 ? 0xed_b8_83_20 : 0)
  }
  return remainder
})

/** Returns CRC-32, as Ethernet and zip have it, of a text of ASCII. */
export function crc32(text: string): number {
  let crc = ~0
  for (let at = 0; at < text.length; at++) {
    crc = (crc >>> 8) ^ (remainders[(crc ^ text.charCodeAt(at)) & 255] ?? 0)
  }
  return ~crc >>> 0
}

/** Returns the hexadecimal SHA-256 of a secret of another system, from which some derive a key. */
export function hexOfSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}
