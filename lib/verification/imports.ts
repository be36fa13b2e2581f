import type { Clock } from '../database/clock'
import { createFailedAttempts } from './failed-attempts'
import type { Memory } from './memory'
import { createSaltedKeys } from './salted-keys'
import { createUpgrade } from './upgrade'
import type { VerificationParts } from './verification'

/** Returns what the memory of a process needs to know all imported keys; `undefined` if the app accepts none. */
export function importingOf({ imported, tables, connections }: VerificationParts) {
  return imported && { imported, tables, connection: connections.usage }
}

/** Makes the count of failed attempts, and the parts that verify the keys of other systems if the app accepts any. */
export function createImports(parts: VerificationParts & { clock: Clock }, memory: Memory) {
  const attempts = createFailedAttempts(parts)
  const { imported, connections } = parts
  const { knownImports: known, feed } = memory
  if (!imported || !known) return { attempts, imports: undefined }
  const connection = connections.lookUps
  const saltedKeys = createSaltedKeys({ ...parts, known, feed, attempts, connection })
  const upgradeSoon = createUpgrade({ ...parts, memory, connection: connections.usage })
  return { attempts, imports: { imported, saltedKeys, upgradeSoon } }
}
