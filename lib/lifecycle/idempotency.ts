import { createCipheriv, createDecipheriv, hash, randomBytes } from 'node:crypto'

import { isKnownSql } from '../../models/api-key-request'
import { systemClock } from '../database/clock'
import { sqlStateOf } from '../database/failures'
import { afterCommit, run, selectJson } from '../database/query'
import { AlreadyCreatedError, ApiKeysError, type ErrorCode } from '../errors'
import { isOwnPrefix } from '../keys/imported-prefix'
import type { ApiKeyRecord } from '../keys/record'
import { derive } from '../keys/secret'
import type { Circumstances, GivenParts, Parts } from './calls'
import { identify, readAll } from './store'

/** A request that is carried out once. It is a row of the table of requests. */
export interface Claim {
  /** The caller and the kind of the request. */
  scope: string
  /** The digest of the idempotency key, because the key itself decrypts an answer that is kept. */
  key: string
  part: number
  /** The digest of the input. */
  body: string
}

/** The answer of a request that makes a secret. */
export interface Issued {
  apiKey: ApiKeyRecord
  plainTextKey: string
}

/** The requests with an idempotency key in this process. */
export type Requests = ReturnType<typeof createRequests>

/** How long, and how many, answers are kept for a client that has lost its answer and asks again. */
const answerKeptMs = 60_000
const mostAnswers = 1_000

const pruneEveryMs = 3_600_000

/** The refusals that another request with the same idempotency key may cause. */
const ofOthers = new Set<ErrorCode>(['already_created', 'too_many_api_keys', 'owner_suspended'])

const lockNotAvailable = '55P03'

/**
 * Makes a secret, and does so once for all calls with one idempotency key. Only calls that succeed count. `make` gets
 * the claim, and writes it in the statement that makes the change, so that there is no change without its claim.
 *
 * Within a minute, the process that made the change answers a repeated call again. All other repeated calls are
 * refused with the record of the key.
 */
export async function once(
  parts: Parts,
  action: string,
  input: object,
  circumstances: Circumstances,
  make: (claim: Claim | undefined) => Promise<Issued>,
): Promise<Issued> {
  const { requests } = parts
  const claim = claimOf(parts, action, input, circumstances)
  if (!claim) return make(undefined)

  return onceFor(parts, claim, {
    find: () => findAnswer(parts, claim, circumstances),
    async make() {
      const issued = await make(claim)
      if (circumstances.answersAgain !== false)
        requests.keepAnswer(claim, issued.plainTextKey, circumstances)
      return issued
    },
  })
}

/** Makes what a request is about, or finds what an earlier call has made. */
export async function onceFor<Result>(
  { requests }: Parts,
  claim: Claim,
  { find, make }: { find(): Promise<Result | undefined>; make(): Promise<Result> },
): Promise<Result> {
  return requests.alone(claim, async () => {
    const known = await find()
    if (known) return known
    try {
      return await make()
    } catch (error) {
      if (sqlStateOf(error) === lockNotAvailable) throw underWay(error)
      if (!(error instanceof ApiKeysError) || !ofOthers.has(error.code)) throw error
      const known = await find()
      if (known) return known
      throw error.code === 'already_created' ? underWay(error) : error
    }
  })
}

function underWay(cause?: unknown) {
  return new ApiKeysError('request_under_way', { cause })
}

/**
 * Returns the claim of a call, or of its first part; `undefined` without an idempotency key. The owner of a key is no part of the scope,
 * because an administrator may ask on behalf of owners.
 */
export function claimOf(
  { environments }: Parts,
  action: string,
  input: object,
  { actor, idempotencyKey: key }: Circumstances,
): Claim | undefined {
  if (key === undefined) return undefined

  const id = actor && actor.type !== 'system' ? String(actor.id) : null
  const scope = JSON.stringify([
    environments.all[0].keyPrefixes.findLast(isOwnPrefix),
    actor?.type ?? 'system',
    id,
    action,
  ])
  return {
    scope: hash('sha256', scope),
    key: hash('sha256', key),
    part: 0,
    body: hash('sha256', JSON.stringify(input)),
  }
}

/** Returns the answer of an earlier call, refuses a call that was made before, or returns `undefined` for a new call. */
async function findAnswer(
  parts: Parts,
  claim: Claim,
  circumstances: Circumstances,
): Promise<Issued | undefined> {
  const { requests } = parts
  const [id] = (await findIds(parts, claim, circumstances)) ?? []
  if (id === undefined) return undefined

  const [apiKey = null] = await readAll(parts, identify(id, circumstances.owner), circumstances)
  const plainTextKey = requests.answerTo(claim, circumstances)
  // The key may have another secret by now, or be revoked.
  const ends = [apiKey?.postfix, apiKey?.pendingRotation?.postfix]
  const isIts = ends.some((end) => end !== undefined && plainTextKey?.endsWith(end))
  if (apiKey?.status === 'ACTIVE' && isIts && plainTextKey !== undefined) {
    return { apiKey, plainTextKey }
  }
  throw new AlreadyCreatedError(apiKey)
}

/** Returns the ids of the keys that an earlier call has made; `undefined` for a new call. Refuses a call with other input. */
export async function findIds(
  { sequelize, tables, inTurn }: Parts,
  { scope, key, part, body }: Claim,
  circumstances: Circumstances,
): Promise<string[] | undefined> {
  const transaction = circumstances.transaction ?? null
  const [known] = await inTurn(circumstances, () =>
    selectJson<{ body: string; ids: string[] }[]>(
      sequelize,
      `SELECT pg_catalog.json_build_object('body', body, 'ids', api_key_ids)::text AS json FROM ${tables.requests}
        WHERE scope = $1 AND key = $2 AND part = $3 AND ${isKnownSql('created_at')}`,
      { bind: [scope, key, part], transaction },
    ),
  )
  if (known && known.body !== body) throw new ApiKeysError('idempotency_key_reused')
  return known?.ids
}

/** Creates the memory of this process for requests with idempotency keys. */
export function createRequests({ background, sequelize, tables }: GivenParts) {
  const underWayIds = new Set<string>()
  const answers = new Map<string, Buffer>()
  let prunedAt = -Infinity

  /** Deletes expired requests. If that fails, the next call tries again. */
  function prune() {
    if (systemClock.monotonic() - prunedAt < pruneEveryMs) return
    prunedAt = systemClock.monotonic()
    const sql = `DELETE FROM ${tables.requests} WHERE NOT ${isKnownSql('created_at')}`
    background.run(() => void run(sequelize, sql, { transaction: null }).catch(() => {}))
  }

  return {
    /** Carries out a request. Until then, refuses requests with the same idempotency key. */
    async alone<Result>(claim: Claim, work: () => Promise<Result>): Promise<Result> {
      const id = idOf(claim)
      if (underWayIds.has(id)) throw underWay()
      underWayIds.add(id)
      try {
        return await work()
      } finally {
        underWayIds.delete(id)
        prune()
      }
    },

    /** Keeps the secret of an answer for a minute, encrypted under the idempotency key, and does not keep that key. */
    keepAnswer(claim: Claim, plainTextKey: string, circumstances: Circumstances) {
      const { transaction } = circumstances
      const id = idOf(claim)
      const cipherKey = cipherKeyOf(claim, circumstances)
      function keep() {
        const [oldest] = answers.keys()
        if (answers.size === mostAnswers && oldest !== undefined) answers.delete(oldest)
        answers.set(id, encrypt(cipherKey, plainTextKey))
        background.startTimer(() => answers.delete(id), answerKeptMs)
      }
      if (transaction) afterCommit(transaction, keep)
      else keep()
    },

    /** Returns the secret of an answer that was kept. */
    answerTo(claim: Claim, circumstances: Circumstances): string | undefined {
      const sealed = answers.get(idOf(claim))
      return sealed && decrypt(cipherKeyOf(claim, circumstances), sealed)
    },
  }
}

function idOf({ scope, key, part }: Claim): string {
  return hash('sha256', JSON.stringify([scope, key, part]))
}

const algorithm = 'aes-256-gcm'
const [ivLength, tagLength] = [12, 16]

function encrypt(key: Buffer, plainTextKey: string): Buffer {
  const iv = randomBytes(ivLength)
  const cipher = createCipheriv(algorithm, key, iv)
  const text = Buffer.concat([cipher.update(plainTextKey, 'utf8'), cipher.final()])
  return Buffer.concat([iv, cipher.getAuthTag(), text])
}

function decrypt(key: Buffer, sealed: Buffer): string {
  const decipher = createDecipheriv(algorithm, key, sealed.subarray(0, ivLength))
  decipher.setAuthTag(sealed.subarray(ivLength, ivLength + tagLength))
  return `${decipher.update(sealed.subarray(ivLength + tagLength), undefined, 'utf8')}${decipher.final('utf8')}`
}

function cipherKeyOf({ scope }: Claim, { idempotencyKey = '' }: Circumstances): Buffer {
  return derive(idempotencyKey, `answer ${scope}`, 32)
}
