import { readClientAddress } from '../keys/addresses'
import { closablesOf, isClosable, type Closable } from '../keys/closable'
import type { Emitter } from '../keys/emitter'
import { asSent } from '../keys/secret'
import type { Verdict, Verifier } from './verify'

interface VerifyWithoutRequestParts {
  verify: Verifier['verify']
  emitter: Pick<Emitter, 'emit' | 'hasListener'>
}

/** Makes the `verify` that the app calls with a plain-text key, for example from a WebSocket. */
export function createVerifyWithoutRequest({ verify, emitter }: VerifyWithoutRequestParts) {
  return async function verifyWithoutRequest(
    plainTextKey: string,
    { until, ip }: { until?: Closable; ip?: string | undefined } = {},
  ): Promise<Verdict> {
    if (until !== undefined && !isClosable(until)) {
      throw new TypeError(
        'verify: until must be an event emitter, such as a response or a socket: it needs the methods once() and off()',
      )
    }
    const closables = until && closablesOf(until)
    const address = typeof ip === 'string' ? readClientAddress(ip) : undefined
    const caller = { closables, ip: address, countedInHour: undefined, refusalOf: demandNothing }
    const sent = asSent(typeof plainTextKey === 'string' ? plainTextKey : '')
    const answer = verify(sent, caller)
    // To wait for a verdict that is there costs a twentieth of a verification.
    const verdict = answer instanceof Promise ? await answer : answer
    if (verdict.valid && emitter.hasListener('verified')) {
      emitter.emit('verified', { apiKey: verdict.apiKey, address: address ?? null })
    }
    return verdict
  }
}

function demandNothing() {
  return null
}
