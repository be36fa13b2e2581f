import { messageOf } from '../database/failures'
import type { Check, Finding, Patient } from './doctor'

/** The checks of the options of the app, and of the keys by them. */
export const checkApp: readonly (readonly [name: string, check: Check])[] = [
  ['keys', checkKeys],
  ['secrets', checkSecrets],
  ['Redis', checkRedis],
  ['trust proxy', checkTrustProxy],
]

async function checkKeys({ apiKeys }: Patient): Promise<Finding[]> {
  const check = 'keys'
  const {
    livingKeys = [],
    unknownPermissions = [],
    refusedKeys = [],
  } = await apiKeys.health({
    livingKeys: true,
  })
  const findings: Finding[] = []
  if (refusedKeys.length > 0) {
    findings.push({
      check: 'prefixes',
      state: 'advice',
      finding: `living keys are refused because of their prefix: ${refusedKeys
        .map(
          ({ keyPrefix, environment, keys }) =>
            `${keys} with ${keyPrefix}${environment === null ? '' : ` of ${environment}`}`,
        )
        .join(', ')}`,
      remedy:
        'Name the prefix in formerPrefixes, the source of @name in imports, or give each environment the prefix that its keys have, unless another app accepts these keys.',
    })
  }
  if (unknownPermissions.length > 0) {
    const names = unknownPermissions
      .map(({ name, keys }) => `${name} (${keys === 1 ? '1 key' : `${keys} keys`})`)
      .join(', ')
    findings.push({
      check: 'permissions',
      state: 'advice',
      finding: `keys have names that the app does not know: ${names}`,
      remedy: 'Name them in formerPermissions, or call renamePermission or dropPermission.',
    })
  }
  const gone = livingKeys.filter(({ secret, secretId }) => secret === null && secretId !== null)
  if (gone.length > 0) {
    const keys = gone.reduce((sum, { keys: count }) => sum + count, 0)
    findings.push({
      check: 'secrets',
      state: 'fault',
      finding: `${keys} living keys were made with a secret that is not among secrets, and are refused`,
      remedy: 'Put the old secret behind the new one: secrets: [new, old].',
    })
  }
  return findings.length > 0
    ? findings
    : [{ check, state: 'ok', finding: 'none is refused by the options' }]
}

async function checkSecrets({ parts }: Patient): Promise<Finding[]> {
  const check = 'secrets'
  const { secrets } = parts
  if (secrets.length > 0) return [{ check, state: 'ok', finding: `${secrets.length} in use` }]
  return [
    {
      check,
      state: 'advice',
      finding: 'there are none, so that everyone can compute hashes and seals',
      remedy: 'Set secrets, with acceptUnkeyed: true if there are keys.',
    },
  ]
}

/** The members of clients of Redis that the check uses. */
interface Client {
  readonly isOpen?: boolean
  readonly status?: string
  info?(section: string): Promise<unknown>
}

async function checkRedis({ parts }: Patient): Promise<Finding[]> {
  const check = 'Redis'
  const { redis, limits } = parts
  if (!redis) {
    const hasLimits = Object.keys(limits).length > 0
    if (!hasLimits) return []
    const remedy = 'Set the option redis if there is more than one process.'
    return [{ check, state: 'advice', finding: 'each process counts limits for itself', remedy }]
  }
  const client = redis as Client
  if (client.isOpen === false || client.status === 'end') {
    const remedy = 'Connect it before the app listens, and in this module for this check.'
    return [{ check, state: 'unknown', finding: 'the client is not connected', remedy }]
  }
  try {
    // Services that manage Redis often refuse CONFIG.
    const info = String(await client.info?.('memory'))
    const [, policy] = /^maxmemory_policy:(\S+)/m.exec(info) ?? []
    if (policy === undefined)
      return [{ check, state: 'unknown', finding: 'it does not say how it evicts' }]
    const finding = `maxmemory-policy is ${policy}`
    if (policy === 'noeviction') return [{ check, state: 'ok', finding }]
    const remedy =
      'Set maxmemory-policy noeviction: otherwise counts are lost when memory is full, and limits begin anew.'
    return [{ check, state: 'advice', finding, remedy }]
  } catch (error) {
    const remedy = 'Requests whose keys have limits get 503 until it answers.'
    return [{ check, state: 'fault', finding: `it does not answer: ${messageOf(error)}`, remedy }]
  }
}

/** An app of Express, as far as the check reads it. */
interface ExpressApp {
  get(setting: string): unknown
  set(setting: string, value: unknown): unknown
}

async function checkTrustProxy({ exports }: Patient): Promise<Finding[]> {
  const check = 'trust proxy'
  const app = Object.values(exports).find((value): value is ExpressApp => isExpressApp(value))
  if (!app) {
    const remedy = 'Export your Express app from the module as well, to have this checked.'
    return [{ check, state: 'unknown', finding: 'the module exports no app', remedy }]
  }
  const value = app.get('trust proxy')
  if (value === true) {
    const remedy =
      'Set it to the number of proxies before the app, such as 1. As it is, each client chooses its address.'
    return [{ check, state: 'fault', finding: 'it is true', remedy }]
  }
  if (value === false || value === undefined) {
    const remedy =
      'If a proxy stands before the app, set it to the number of proxies. Otherwise allowedIps sees the address of the proxy.'
    return [{ check, state: 'ok', finding: 'it is off', ...(value === undefined && { remedy }) }]
  }
  return [
    {
      check,
      state: 'ok',
      finding: typeof value === 'function' ? 'it is a function' : `it is ${JSON.stringify(value)}`,
    },
  ]
}

function isExpressApp(value: unknown): boolean {
  const { get, set, listen, handle } = Object(value) as Record<string, unknown>
  return [get, set, listen, handle].every((member) => typeof member === 'function')
}
