import createDebug from 'debug'

import { optionsOf } from '../../models/option-checks'
import { codeOf } from '../errors'
import { readClientAddress } from '../keys/addresses'
import { closablesOf, isClosable } from '../keys/closable'
import type { Emitter } from '../keys/emitter'
import { asSent } from '../keys/secret'
import type { Settings } from '../read-options'
import type { UsageRecorder } from '../usage/recorder'
import { checkResource, RequestConditions } from './guard-conditions'
import type { Outcomes } from './outcomes'
import type { Refused } from './refuse'
import type { KeyCaller } from './verified-key'
import type { Verdict, Verifier, VerifyOptions } from './verify'

const log = createDebug('express-api-keys:verify')

/** Makes the `verify` that the app calls with a plain-text key, for example from a WebSocket. */
export function createVerifyWithoutRequest(parts: AloneParts) {
  const { verify, usage, emitter, environments, resources, outcomes } = parts
  const { enabled: isPrinted } = log

  function refused(id: string | undefined, verdict: Refused): Refused {
    if (isPrinted) log('%s; refused: %s', nameOfKey(id), verdict.code)
    outcomes.noteRefused(codeOf(verdict.code), verdict.code)
    return verdict
  }

  return async function verifyWithoutRequest(
    plainTextKey: string,
    options?: VerifyOptions<string, string>,
  ): Promise<Verdict> {
    const { until, ip, environment, resource } = optionsOf(options)
    const accepted = environments.acceptedBy('verify', environment)
    if (until !== undefined && !isClosable(until)) {
      throw new TypeError(
        'verify: until must be an event emitter, such as a response or a socket: it needs the methods once() and off()',
      )
    }
    const closables = until && closablesOf(until)
    const address = typeof ip === 'string' ? readClientAddress(ip) : undefined
    checkResource('verify', resource, 'object', resources)
    const refusalOf = resource ? createRefusal(resource) : demandNothing
    const caller: KeyCaller = { closables, ip: address, countedInHour: undefined, refusalOf }
    const sent = asSent(typeof plainTextKey === 'string' ? plainTextKey : '')
    const answer = verify(sent, caller)
    // Waiting for a verdict that is already there would cost a twentieth of a verification.
    const verdict = answer instanceof Promise ? await answer : answer
    if (!verdict.valid) return refused(caller.refused?.id, verdict)
    const { id } = verdict.row
    if (accepted !== null && !accepted.includes(verdict.row.environment ?? '')) {
      usage.noteDenied(verdict.row, caller)
      return refused(id, { valid: false, code: 'environment_not_allowed' })
    }
    if (refusalOf(verdict)) {
      usage.noteDenied(verdict.row, caller)
      return refused(id, { valid: false, code: 'resource_not_allowed' })
    }

    const { apiKey } = verdict
    if (emitter.listeners.has('verified')) {
      emitter.emit('verified', { apiKey, address: address ?? null })
    }
    if (isPrinted) log('%s; passes', nameOfKey(id))
    outcomes.accepted++
    return { valid: true, apiKey }
  }
}

function nameOfKey(id: string | undefined): string {
  return id === undefined ? 'no key' : `key ${id}`
}

interface AloneParts extends Pick<Settings, 'environments' | 'resources'> {
  emitter: Pick<Emitter, 'emit' | 'listeners'>
  verify: Verifier['verify']
  usage: Pick<UsageRecorder, 'noteDenied'>
  outcomes: Outcomes
}

function demandNothing() {
  return null
}

/** Makes the refusal of keys that are bound to other resources than the call is about. */
function createRefusal(resource: object): KeyCaller['refusalOf'] {
  const guard = { environments: null, refusePermissions: demandNothing, resource: () => resource }
  const conditions = new RequestConditions(guard, resource, undefined)
  return (holding) => conditions.refuseByAll(holding)
}
