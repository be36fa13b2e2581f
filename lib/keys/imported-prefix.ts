import { shownLength } from './secret'

/*
 * Each key belongs to an instance by the column `prefix`. A key of ours has the key prefix, an underscore and six characters there. An
 * imported key has '@' and the name of its source in place of the key prefix, which no key prefix can be. So the keys of a source are
 * found, counted and listed as the keys of one more prefix, by the same indexes.
 */

const mark = '@'

/** Stands for characters of the start that the source does not know. */
const unknown = '.'

/** Returns what the keys of a source have in place of a key prefix. */
export function prefixOfSource(source: string): string {
  return mark + source
}

/** True for what keys of ours begin with, and false for a source. */
export function isOwnPrefix(keyPrefix: string): boolean {
  return !keyPrefix.startsWith(mark)
}

/** Returns the column `prefix` of an imported key. Of its start, at most six characters are kept. */
export function importedPrefix(source: string, start: string): string {
  const [known = ''] = /^[\w|-]*/.exec(start.slice(0, shownLength)) ?? []
  return `${prefixOfSource(source)}_${known.padEnd(shownLength, unknown)}`
}

/** Returns the start of a key as people know it, from the column `prefix`. It is empty if the source does not know it. */
export function shownPrefix(prefix: string): string {
  if (isOwnPrefix(prefix)) return prefix
  const [known = ''] = prefix.slice(-shownLength).split(unknown)
  return known
}

/** Returns the source of an imported key that was not rotated, from the column `prefix`; `null` for a key of ours. */
export function sourceOfPrefix(prefix: string): string | null {
  return isOwnPrefix(prefix) ? null : prefix.slice(mark.length, -1 - shownLength)
}
