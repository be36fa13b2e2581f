/*
 * The numbers of the log of changes and of the audit trail. An identity column would begin again at 1 after a move to another
 * server or RESTART IDENTITY. So a number is the time in microseconds; if that is not above the last number, it is the last number
 * plus 1. The identity of the column only marks rows that need a number, because its own numbers are far below.
 */

/** SQL for the time in microseconds since 1970. It stays within what JavaScript can count until 2255. */
export const microseconds = '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint'

/** Numbers below come from the identity of the column. As a time, this is in 2001. */
export const leastNumber = 1_000_000_000_000_000
