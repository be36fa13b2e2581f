/*
 * How the log of changes and the audit trail are numbered. An identity column would begin again at 1 after a move to another
 * server or RESTART IDENTITY. So a number is the time in microseconds or, if that is not above the last number, the last
 * number plus 1. The identity of the column only marks rows that need such a number: what it draws is far below.
 */

/** SQL for the time in microseconds since 1970. It stays within what JavaScript can count until 2255. */
export const microseconds = '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint'

/** Numbers below are drawn by the identity of the column: as a time, this is in 2001. */
export const leastNumber = 1_000_000_000_000_000
