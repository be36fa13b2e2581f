import { hash } from 'node:crypto'

import { setImmediate, type Background } from '../database/background'
import { isOutage } from '../database/failures'
import { ApiKeysError } from '../errors'
import type { Emitter } from '../keys/emitter'
import type { SentKey } from '../keys/secret'
import type { RouteCommands } from '../lifecycle/commands'
import { plainHttp } from '../lifecycle/exposure'
import type { Verification } from '../verification/verification'

interface PlainHttpParts {
  background: Background
  emitter: Pick<Emitter, 'emit'>
  verification: Pick<Verification, 'locate'>
  routeCommands: Pick<RouteCommands, 'expose'>
}

/** How many keys are looked up and revoked at once. A client whose key finds no room sends it again. */
const mostAtOnce = 1_000

/** How many keys are known as done, and for how long each of them is not looked up again. */
const mostDone = 10_000
const doneForMs = 10_000
/** The same for a key that was revoked before. It is marked as exposed by then, and never comes back. */
const revokedForMs = 600_000

const firstRetryMs = 1_000
const lastRetryMs = 60_000

/**
 * Makes the function that revokes a key that came over plain HTTP. Its work begins after the answer, so that neither the answer nor its
 * time says anything about the key. While the database is unavailable, keys wait in memory.
 */
export function createPlainHttp(parts: PlainHttpParts) {
  const { background, emitter, verification, routeCommands } = parts
  const underWay = new Set<string>()
  /** By the hashes of keys, the time from which on each may be looked up again. The oldest is first. */
  const done = new Map<string, number>()

  /** Revokes the key with a text, if there is one. Resolves to the milliseconds for which it is done; 0 for a text that is no key of the app. */
  async function revoke(text: string, address: string | null): Promise<number> {
    const { digests, key } = await verification.locate(text, { ip: address })
    if (digests.length === 0) return 0
    if (!key) return doneForMs

    await routeCommands.expose([{ apiKeyId: key.id, digests, source: plainHttp, url: null }], {
      reason: 'sent over plain HTTP',
      outcome: 'revoke',
      ...(address !== null && { address }),
    })
    return key.status === 'REVOKED' ? revokedForMs : doneForMs
  }

  async function work(name: string, text: string, address: string | null, retryMs: number) {
    underWay.add(name)
    try {
      const doneMs = await revoke(text, address)
      if (doneMs > 0) noteDone(name, doneMs)
      underWay.delete(name)
    } catch (error) {
      if (!isOutage(error)) {
        underWay.delete(name)
        // The address has sent too many made-up keys.
        if (!(error instanceof ApiKeysError)) emitter.emit('error', { error, notice: 'exposed' })
        return
      }
      emitter.emit('unavailable', { error, address })
      const nextMs = Math.min(2 * retryMs, lastRetryMs)
      background.startTimer(() => void work(name, text, address, nextMs), retryMs)
    }
  }

  function noteDone(name: string, forMs: number) {
    done.set(name, Date.now() + forMs)
    if (done.size <= mostDone) return
    const [oldest = ''] = done.keys()
    done.delete(oldest)
  }

  return function revokeLater({ text, start }: SentKey, address: string | null) {
    if (underWay.size >= mostAtOnce) return
    const key = text.slice(start)
    background.run(() =>
      setImmediate(() => {
        const name = hash('sha256', key, 'base64')
        if (underWay.has(name) || (done.get(name) ?? 0) > Date.now()) return
        done.delete(name)
        void work(name, key, address, firstRetryMs)
      }),
    )
  }
}
