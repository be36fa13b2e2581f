import { acquireLimitMs } from '../database/open-client'
import { createOnPool } from '../database/pool'
import { mostAtOnceOf } from '../database/turns'
import type { GivenParts, Parts } from './calls'
import { createCombiner } from './combine'
import { createRequests } from './idempotency'
import { createChangeLine, createCreationLine } from './lines'
import { createInTransaction, createNoteMade, createReportMade } from './transactions'

/** Adds the parts with which the functions of this folder make changes. */
export function createParts(given: GivenParts): Parts {
  const { sequelize } = given
  const limits = { mostAtOnce: mostAtOnceOf(sequelize), limitMs: acquireLimitMs(sequelize) }
  const own = {
    ...given,
    inTransaction: createInTransaction(given),
    noteMade: createNoteMade(given),
    reportMade: createReportMade(given),
    onPool: createOnPool(sequelize, given),
    requests: createRequests(given),
    submit: createCombiner({ ...given, ...limits }),
  }
  return { ...own, creations: createCreationLine(own), changes: createChangeLine(own) }
}
