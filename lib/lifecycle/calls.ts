import { AsyncResource } from 'node:async_hooks'

import type { Transaction } from 'sequelize'

import { optionsOf } from '../../models/option-checks'
import type { Audit } from '../audit/trail'
import type { OnPool } from '../database/pool'
import type { InTurn } from '../database/turns'
import { isListOfNames, type Grantable } from '../keys/grantable'
import type { Parsers } from '../keys/input'
import type { Owner } from '../keys/owner'
import type { Actor, ApiKeyRecord } from '../keys/record'
import type { UsageStore } from '../usage/report'
import type { Verification, VerificationParts } from '../verification/verification'
import type { ChangeMember } from './change-key'
import type { Line, Submit } from './combine'
import type { Requests } from './idempotency'
import type { NewMember } from './new-keys'
import type { InTransaction, NoteMade, ReportMade } from './transactions'
import type { ChangeOptions } from './types'

/** The parts that the functions of this folder are given. */
export interface GivenParts extends VerificationParts {
  parse: Parsers
  /** Asks the app for the permissions of an owner; `undefined` if owners may give all permissions. */
  grantable: Grantable | undefined
  inTurn: InTurn
  audit: Audit
  usage: UsageStore
  verification: Verification
}

/** The parts with which changes are made. */
export interface WritingParts extends GivenParts {
  inTransaction: InTransaction
  noteMade: NoteMade
  reportMade: ReportMade
  onPool: OnPool
  submit: Submit
  requests: Requests
}

/** All parts that the functions of this folder work with. */
export interface Parts extends WritingParts {
  creations: Line<NewMember, ApiKeyRecord>
  changes: Line<ChangeMember, ApiKeyRecord>
}

/** The options of a call besides its subject: the owner, the transaction, and the values that the audit trail notes. */
export interface Circumstances {
  owner?: Owner | undefined
  transaction?: Transaction | undefined
  actor?: Actor | undefined
  address?: string | undefined
  reason?: string | undefined
  /** The permissions that the caller may give; `undefined` for all that the owner holds. */
  mayGive?: readonly string[] | undefined
  /** Names a request that makes a secret, so that it is carried out once. */
  idempotencyKey?: string | undefined
  /** True if this process may show the secret again to the same request, for a minute. */
  answersAgain?: boolean
  /** Runs work in the async context of the call, for example the listeners of its change. */
  context?: AsyncResource | undefined
}

/** The same within a transaction that is open. */
export type OwnCircumstances = Circumstances & { transaction: Transaction }

/** Parses the last argument of a call. */
export function readOptions(parse: Parsers, options: ChangeOptions | undefined): Circumstances {
  const { transaction, mayGive, ...given } = optionsOf(options)
  refuseUndefined(given, 'userId', 'owner')
  checkTransaction(transaction)
  if (mayGive !== undefined && !isListOfNames(mayGive)) {
    throw new TypeError('mayGive must be a list of permissions')
  }
  const { owner, actor, ...others } = parse.circumstances(given)
  const user: Actor | undefined = owner?.type === 'user' ? owner : undefined

  // Cheaper than `AsyncLocalStorage.snapshot()`, which takes 9 microseconds on Node 20.
  const context = new AsyncResource('ApiKeysCall')
  return { ...others, transaction, mayGive, owner, actor: actor ?? user, context }
}

/** Refuses an owner in the last argument of a call that has it in the first. Otherwise it would go unheeded. */
export function refuseOwner(options: object | undefined) {
  for (const name of ['owner', 'userId']) {
    if (name in optionsOf(options))
      throw new TypeError(`${name} goes into the first argument of this call`)
  }
}

/** Refuses a transaction of the caller's in a call that works in transactions of its own. */
export function refuseTransaction(options: ChangeOptions | undefined) {
  if (optionsOf(options).transaction)
    throw new TypeError('this call makes transactions of its own: leave out the transaction')
}

/** Refuses `{ userId: undefined }`, because it looks like a mistake that would reach the keys of all owners. */
export function refuseUndefined(options: unknown, ...names: string[]) {
  for (const [name, value] of Object.entries(Object(options))) {
    if (names.includes(name) && (value === undefined || value === null)) {
      throw new TypeError(`${name} is ${value}: leave it out to mean all of them`)
    }
  }
}

/**
 * Refuses a value that is no transaction of Sequelize. An app may have two copies of Sequelize, so the class does not
 * matter.
 */
export function checkTransaction(transaction: unknown) {
  if (transaction !== undefined && transaction !== null && !('commit' in Object(transaction))) {
    throw new TypeError('transaction must come from sequelize.transaction()')
  }
}

/** Refuses an `everywhere` that is not true or false, or that cannot be kept: a transaction may commit at any time. */
export function checkEverywhere(everywhere: unknown, transaction: unknown) {
  if (typeof everywhere !== 'boolean') throw new TypeError('everywhere must be true or false')
  if (everywhere && transaction) {
    throw new TypeError('everywhere needs a change that is committed: leave out the transaction')
  }
}
