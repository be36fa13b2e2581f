import v = require('valibot')

import { statuses } from '../../models/api-key'
import * as fields from './fields'
import { createParser } from './parse-input'

/** How far the clock of another system may be ahead. */
const aheadMs = 86_400_000

/** A time at which something has happened. */
const pastMoment = v.pipe(
  fields.momentOfUse,
  v.check((time) => time.getTime() <= Date.now() + aheadMs, 'must not be in the future'),
)

/** Parses what an imported key has and a new key has not. A time may be over. */
export const parseImportedState = createParser(
  v.object({
    status: v.optional(fields.oneOf(statuses), 'ACTIVE'),
    createdAt: v.optional(pastMoment),
    expiresAt: v.optional(fields.momentOfUse),
    lastUsedAt: v.optional(pastMoment),
    revokedAt: v.optional(pastMoment),
  }),
)
