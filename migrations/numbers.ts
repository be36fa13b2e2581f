/*
 * The numbers of the log of changes and of the audit trail. An identity column would begin again at 1 after a move to another
 * server or RESTART IDENTITY. So a number is the time in microseconds; if that is not above the last number, it is the last number
 * plus 1. The identity of the column only marks rows that need a number, because its own numbers are far below.
 */

/** SQL for the time in microseconds since 1970. It stays within what JavaScript can count until 2255. */
export const microseconds = '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint'

/** Numbers below come from the identity of the column. As a time, this is in 2001. */
export const leastNumber = 1_000_000_000_000_000

const yearOfMicroseconds = 366 * 24 * 3_600_000_000

/**
 * A statement of a trigger that refuses a given number of more than a year ahead. All later numbers would be above it, and there are no numbers
 * above the greatest. So one row could refuse all later changes, revocations among them. A session that replicates takes the numbers of the
 * publisher as they are.
 */
export function refuseFarAhead(number: string): string {
  return `IF ${number} > ${microseconds} + ${yearOfMicroseconds} AND current_setting('session_replication_role') <> 'replica' THEN
                RAISE check_violation USING MESSAGE = format('express-api-keys: the number %s is more than a year ahead', ${number});
              END IF;`
}
