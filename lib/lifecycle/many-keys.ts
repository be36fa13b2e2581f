import type { Transaction } from 'sequelize'

import { ownerColumns } from '../../models/owner'
import { wait } from '../database/background'
import { detailOf, explain, sqlStateOf } from '../database/failures'
import { run, runIn } from '../database/query'
import { ApiKeysError, InvalidInputError, TooManyApiKeysError, type InputFault } from '../errors'
import type { NewKey } from '../keys/input'
import type { ApiKeyRecord } from '../keys/record'
import type { Circumstances, Parts } from './calls'
import { claimOf, findIds, onceFor, type Claim } from './idempotency'
import { faultAt, maxFaults, nextTurn, parseKeys } from './many-inputs'
import {
  createKeys,
  draftKeys,
  foreignKeyViolation,
  unknownOwner,
  type Created,
  type Draft,
  type NewChange,
  type NewMember,
} from './new-keys'
import { readAll } from './store'

/** How many keys are created in one transaction, each or none. */
const batchSize = 1_000

/** How many keys are drafted at once. */
const draftedAtOnce = 100

/**
 * How long a batch waits for a lock, and for how long it begins anew after that. A batch has the locks of many owners. If an app has locked
 * one of these, it may wait for another. So the batch gives way before the server looks for a deadlock.
 */
const patienceMs = 500
const waitLimitMs = 10_000

const lockNotAvailable = '55P03'

const readCommitted = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED'

/** The result of `createMany`. */
export interface ManyCreated {
  /** Keys that an earlier call with the same idempotency key has created are without their plain text. */
  apiKeys: { apiKey: ApiKeyRecord; plainTextKey: string | null }[]
  failure: ApiKeysError | null
}

/** Keys that are created in one transaction. */
interface Batch {
  keys: readonly NewKey[]
  /** The place of the first key in the list. */
  first: number
  /** The request that is carried out once. */
  claim: Claim | undefined
  /** The next keys. The process drafts them while the database creates these. */
  next: Batch | undefined
  drafted?: Promise<Drafted>
}

/** New keys as a statement takes them, and their plain text. */
interface Drafted {
  drafts: Draft[]
  plainTextKeys: string[]
}

/**
 * Creates keys in their order, a thousand in a transaction, each or none. If a later thousand fails, the keys before it exist, and only
 * this answer has their plain text. So it returns them, with the failure. Each thousand is a part of its own of a request with an
 * idempotency key, so that a call that is repeated goes on where the call before stopped.
 */
export async function createMany(
  parts: Parts,
  given: unknown,
  circumstances: Circumstances,
): Promise<ManyCreated> {
  const keys = await parseKeys(parts, given, circumstances)
  const claim = claimOf(parts, 'createMany', keys, circumstances)
  const apiKeys: ManyCreated['apiKeys'] = []
  for (let batch = batchOf(keys, claim, 0); batch; batch = batch.next) {
    try {
      apiKeys.push(...(await createOnce(parts, batch, circumstances)))
    } catch (error) {
      // In a transaction of the caller, nothing of this call may be kept.
      if (batch.first === 0 || circumstances.transaction) throw error
      return { apiKeys, failure: toFailure(error) }
    }
  }
  return { apiKeys, failure: null }
}

function batchOf(keys: readonly NewKey[], claim: Claim | undefined, first: number) {
  if (first >= keys.length) return undefined
  const batch: Batch = {
    keys: keys.slice(first, first + batchSize),
    first,
    claim: claim && { ...claim, part: first / batchSize },
    next: batchOf(keys, claim, first + batchSize),
  }
  return batch
}

function toFailure(error: unknown): ApiKeysError {
  const explained = explain(error)
  if (explained instanceof ApiKeysError) return explained
  return new ApiKeysError('database_unavailable', { cause: explained })
}

/** Creates the keys of a batch, or finds the keys that an earlier call with the same idempotency key has created. */
async function createOnce(
  parts: Parts,
  batch: Batch,
  circumstances: Circumstances,
): Promise<ManyCreated['apiKeys']> {
  const { claim } = batch
  if (!claim) return createBatch(parts, batch, circumstances)

  return onceFor(parts, claim, {
    find: () => findBatch(parts, claim, circumstances),
    make: () => createBatch(parts, batch, circumstances),
  })
}

/** Keys that are deleted since are left out. */
async function findBatch(parts: Parts, claim: Claim, circumstances: Circumstances) {
  const ids = await findIds(parts, claim, circumstances)
  if (!ids) return undefined

  const condition = { where: 'key.id = ANY($1::uuid[])', bind: [ids] }
  const records = await readAll(parts, condition, { transaction: circumstances.transaction })
  const known = new Map(records.map((record) => [record.id, record]))
  return ids.flatMap((id) => {
    const apiKey = known.get(id)
    return apiKey ? [{ apiKey, plainTextKey: null }] : []
  })
}

/** Drafts the keys of a batch, some at a time, because other requests wait. */
async function draftBatch(
  parts: Parts,
  { keys, claim }: Batch,
  circumstances: Circumstances,
): Promise<Drafted> {
  const plainTextKeys: string[] = []
  const drafts: Draft[] = []
  for (let start = 0; start < keys.length; start += draftedAtOnce) {
    await nextTurn()
    const members = keys.slice(start, start + draftedAtOnce).map((key, index): NewMember => {
      const { plainTextKey, ...secret } = parts.format.mint(
        parts.environments.ofNewKey(key).keyPrefixes[0],
      )
      plainTextKeys.push(plainTextKey)
      return { key, secret, circumstances, claim: start + index === 0 ? claim : undefined }
    })
    drafts.push(...draftKeys(parts, members))
  }
  return { drafts, plainTextKeys }
}

async function createBatch(
  parts: Parts,
  batch: Batch,
  circumstances: Circumstances,
): Promise<ManyCreated['apiKeys']> {
  const { keys, first, claim, next } = batch
  const { drafts, plainTextKeys } = await (batch.drafted ?? draftBatch(parts, batch, circumstances))
  if (next) {
    next.drafted = draftBatch(parts, next, circumstances)
    // An error counts when the batch has its turn.
    next.drafted.catch(() => {})
  }
  const isOwn = !circumstances.transaction
  const create = async (transaction: Transaction) => {
    const runHere = runIn(parts.sequelize, transaction)
    // The keys of an owner are counted, for which the statement must see the keys that other transactions have committed.
    if (isOwn) await run(parts.sequelize, readCommitted, { transaction })
    const { outcomes, xid } = await createKeys(
      parts,
      runHere,
      drafts,
      isOwn ? patienceMs : null,
    ).catch((error: unknown) => explainUnknownOwners(error, keys, first))
    const made = madeOrRefused(outcomes, first)
    if (claim) await noteIds(parts, claim, made, transaction)
    parts.noteMade(
      transaction,
      made.map((change) => ({ change, circumstances })),
      { xid, isLogged: false },
    )
    return made
  }
  const changes = await giveWay(parts, circumstances, create)
  for (const { member } of drafts) {
    parts.verification.added(member.secret.hash, circumstances.transaction)
  }
  return changes.map(({ after }, index) => ({
    apiKey: after.record,
    plainTextKey: plainTextKeys[index] ?? '',
  }))
}

/** Creates a batch in the transaction of the caller, or else in a transaction of the library, which begins anew if it waits for long. */
async function giveWay<Result>(
  parts: Parts,
  circumstances: Circumstances,
  create: (transaction: Transaction) => Promise<Result>,
): Promise<Result> {
  const endsAt = Date.now() + (circumstances.transaction ? 0 : waitLimitMs)
  for (;;) {
    try {
      return await parts.inTransaction(circumstances, create)
    } catch (error) {
      if (sqlStateOf(error) !== lockNotAvailable || Date.now() >= endsAt) throw error
      await wait(Math.random() * patienceMs)
    }
  }
}

/** Notes all keys of a batch with its claim, which its first key has made. */
async function noteIds(
  { sequelize, tables }: Parts,
  { scope, key, part }: Claim,
  made: readonly NewChange[],
  transaction: Transaction,
) {
  const ids = made.map(({ after }) => after.record.id)
  await run(
    sequelize,
    `UPDATE ${tables.requests} SET api_key_ids = $4::uuid[] WHERE scope = $1 AND key = $2 AND part = $3`,
    { bind: [scope, key, part, ids], transaction },
  )
}

/** Returns the changes of a batch, or throws an error that names the keys beyond the maximum. */
function madeOrRefused(outcomes: Created['outcomes'], first: number): NewChange[] {
  const made: NewChange[] = []
  const faults: InputFault[] = []
  for (const [index, outcome] of outcomes.entries()) {
    if (!(outcome instanceof Error)) made.push(outcome)
    else if (outcome.code !== 'too_many_api_keys') throw outcome
    else faults.push(faultAt(first + index, tooMany))
  }
  if (faults.length > 0) throw new TooManyApiKeysError(faults.slice(0, maxFaults))
  return made
}

const tooMany: InputFault = { pointer: '#', message: 'is one more than its owner may have' }

/** Throws an error of the database; a refusal if the owners of some keys do not exist. */
function explainUnknownOwners(error: unknown, keys: readonly NewKey[], first: number): never {
  if (sqlStateOf(error) !== foreignKeyViolation) throw error

  // The server names one owner, in any language: Key (user_id)=(nobody) is not present in table "users".
  const [, column, unknown] = /\(([^()]+)\)=\((.*)\)[^)]*$/s.exec(detailOf(error)) ?? []
  const faults = keys.flatMap(({ owner }, index) =>
    ownerColumns[owner.type] === column && String(owner.id) === unknown
      ? [faultAt(first + index, unknownOwner(owner))]
      : [],
  )
  const whole = { pointer: '#/apiKeys', message: 'have an owner that does not exist' }
  throw new InvalidInputError(faults.length > 0 ? faults.slice(0, maxFaults) : [whole], {
    cause: error,
  })
}
