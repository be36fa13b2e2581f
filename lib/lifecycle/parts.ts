import type { UserIdType } from '../../models/storage-options'
import type { Tables } from '../../models/tables'
import type { Audit } from '../audit/trail'
import type { Background } from '../database/background'
import type { Emitter } from '../keys/emitter'
import type { Grantable } from '../keys/grantable'
import type { Parsers } from '../keys/input'
import type { SecretFormat } from '../keys/secret'
import type { InTurn } from '../database/turns'
import type { Settings } from '../read-options'
import type { UsageStore } from '../usage/report'
import type { Verification } from '../verification/verification'
import type { InTransaction } from './transactions'

/** What the functions of this folder work with. */
export interface Parts extends Settings {
  tables: Tables
  userIdType: UserIdType
  parse: Parsers
  format: SecretFormat
  /** Asks the app what a user may do; `undefined` if users may give all permissions. */
  grantable: Grantable | undefined
  emitter: Emitter
  background: Background
  inTurn: InTurn
  inTransaction: InTransaction
  audit: Audit
  usage: UsageStore
  verification: Verification
}
