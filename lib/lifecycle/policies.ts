import type { Transaction } from 'sequelize'

import { InvalidInputError, type InputFault } from '../errors'
import { isSame } from '../audit/trail'
import { readGranted, type Grantable } from '../keys/grantable'
import type { LimitOverrides } from '../keys/limits'
import { maxMetadataBytes, sizeOf, type Metadata } from '../keys/metadata'
import type { ApiKeyRecord } from '../keys/record'
import { pointerTo } from '../keys/parse-input'
import type { Actor } from '../keys/types'

interface KeyCheckParts {
  /** Counted from the creation of a key. */
  maxLifetimeSeconds: number
  /** Names in the metadata of keys that owners may not write. */
  reservedMetadata: readonly string[]
  grantable: Grantable | undefined
}

/** The rules for what a key may become that depend on the key, its owner or who makes the change. */
export function createKeyChecks(parts: KeyCheckParts) {
  const { maxLifetimeSeconds, reservedMetadata, grantable } = parts

  /** Owners read what is reserved, and others write it. */
  function refuseReserved(metadata: Metadata, actor: Actor | undefined) {
    if (actor?.type !== 'user') return

    const faults = reservedMetadata
      .filter((name) => Object.hasOwn(metadata, name))
      .map((name) => ({
        pointer: pointerTo(['metadata', name]),
        message: 'is for administrators to write',
      }))
    if (faults.length > 0) throw new InvalidInputError(faults)
  }

  return {
    refuseReserved,

    refuseTooLate(expiresAt: Date | null, createdAt: number) {
      if (maxLifetimeSeconds === Infinity) return

      const latest = new Date(createdAt + maxLifetimeSeconds * 1000)
      if (expiresAt !== null && expiresAt <= latest) return
      const message =
        expiresAt === null ? 'is required here' : `must not be later than ${latest.toISOString()}`
      throw new InvalidInputError([{ pointer: pointerTo(['expiresAt']), message }])
    },

    /** What an owner writes replaces everything but what is reserved. */
    withReserved(metadata: Metadata, key: ApiKeyRecord, actor: Actor | undefined): Metadata {
      if (actor?.type !== 'user') return metadata

      const kept = Object.entries(key.metadata).filter(([name]) => reservedMetadata.includes(name))
      const own = Object.entries(metadata).filter(
        ([name, value]) => !reservedMetadata.includes(name) || !isSame(value, key.metadata[name]),
      )
      refuseReserved(Object.fromEntries(own), actor)
      const whole = Object.fromEntries([...kept, ...own])
      if (sizeOf(whole) <= maxMetadataBytes) return whole

      const message = `must have at most ${maxMetadataBytes} bytes as JSON, with what is reserved`
      throw new InvalidInputError([{ pointer: pointerTo(['metadata']), message }])
    },

    /** The app reads within the transaction of the caller, if there is one: it may have taken the last connection of the pool. */
    async refuseUngrantable(
      userId: string | number,
      permissions: readonly string[],
      transaction: Transaction | undefined,
    ) {
      if (!grantable) return

      const granted = readGranted(await grantable(userId, { transaction }))
      const faults = permissions.flatMap((permission, index): InputFault[] => {
        if (granted.includes(permission)) return []
        return [
          {
            pointer: pointerTo(['permissions', index]),
            message: 'may not be granted by this user',
          },
        ]
      })
      if (faults.length > 0) throw new InvalidInputError(faults)
    },
  }
}

/** How often a key may be used is not for its owner to say. */
export function refuseOwnLimits(
  limits: LimitOverrides | null | undefined,
  { before, actor }: { before: LimitOverrides | null; actor: Actor | undefined },
) {
  if (actor?.type !== 'user' || limits === undefined || isSame(limits, before)) return

  const message = 'is for administrators to write'
  throw new InvalidInputError([{ pointer: pointerTo(['limits']), message }])
}
