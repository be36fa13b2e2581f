import type { ApiKeyEvent } from '../../audit/list-entries'
import type { LimitState } from '../../errors'
import type { NamedLimit } from '../../keys/limits'
import type { ApiKeyRecord } from '../../keys/record'
import type { UsageCounts } from '../../usage/report'
import type { Page } from '../page'
import type { Texts } from '../texts/texts'
import type { Slot } from './chart'

/** A message on what was just done. */
export type Notice = keyof Texts['notices']

/** The contents of the page of a key. */
export interface KeyProps {
  page: Page
  apiKey: ApiKeyRecord
  userId: string | number
  /** True if the user may change the key. */
  canChange: boolean
  /** True if the user may have its secret, and may let it work again. */
  canRenew: boolean
  /** True if the user is an administrator, and can still undo its revocation. */
  canUnrevoke: boolean
  descriptions: ReadonlyMap<string, string>
  limits: readonly NamedLimit[]
  /** How much of each limit is left; `null` if that cannot be read. */
  limitStates: readonly LimitState[] | null
  /** True if all processes of the app share one count. */
  isCountShared: boolean
  slots: readonly Slot[]
  totals: UsageCounts
  period: 'hour' | 'day'
  events: readonly ApiKeyEvent[]
  olderEvents: string | null
  isNewest: boolean
  notice: Notice | undefined
  /** Why the last action was refused. */
  fault: string | undefined
}
