import { searchSql } from '../../models/api-key'
import { signedText, type AcceptedSource } from '../importing/imported-keys'
import { importedPrefix } from '../keys/imported-prefix'
import { shownLength, toStoredHash } from '../keys/secret'
import type { Parts } from './calls'

/**
 * Returns SQL that is true for the keys that a text finds. Each of its words is the start of a word, or a key, or the part of a key that
 * lists show. Only this part finds a key of ours. An imported key is also found by its hash, because its start may be unknown. If it has
 * a salt, that holds from its first use on.
 */
export function textConditions(
  text: string,
  { format, imported }: Pick<Parts, 'format' | 'imported'>,
  bind: unknown[],
): string[] {
  const starts: string[] = []
  const others: string[] = []
  const conditions: string[] = []
  for (const word of text.split(/\s+/)) {
    const marker = format.markers.find((marker) => word.startsWith(marker))
    const own = marker === undefined ? [] : [word.slice(0, marker.length + shownLength)]
    const all = imported?.all ?? []
    const shaped = all.filter((each) => imported?.hasShapeOf(each, word))
    const isShown = word.replace(dots, '').length === shownLength
    const sources = shaped.length === 0 && isShown ? all : shaped
    if (sources.length === 0) {
      if (marker === undefined) others.push(word)
      else starts.push(...own)
      continue
    }
    const prefixes = sources.map(({ source }) => importedPrefix(source.name, word))
    const shown = `$${bind.push(toPrefixQuery([...own, ...prefixes], '|'))}::tsquery`
    const query = shaped.length === 0 ? `(${wordsQuery([word], bind)} || ${shown})` : shown
    const hashes = shaped.flatMap((each) => hashesOf(each, word))
    const hasHash = hashes.length === 0 ? '' : ` OR key.hash = ANY ($${bind.push(hashes)}::text[])`
    conditions.push(`(${searchSql('key.')} @@ ${query}${hasHash})`)
  }
  const queries = [
    ...(starts.length > 0 ? [`$${bind.push(toPrefixQuery(starts, '&'))}::tsquery`] : []),
    ...(others.length > 0 ? [wordsQuery(others, bind)] : []),
  ]
  if (queries.length > 0) conditions.push(`${searchSql('key.')} @@ (${queries.join(' && ')})`)
  return conditions
}

/** The text that lists show behind the start of a key. */
const dots = /(?:\.{3}|…)$/

/** Returns the hashes that a text may have as a key of a source. */
function hashesOf(accepted: AcceptedSource, text: string): string[] {
  const signed = signedText(accepted.source, text)
  return accepted.hashersOf(signed.length).map((hasher) => toStoredHash(hasher.digest(signed)))
}

function wordsQuery(words: readonly string[], bind: unknown[]): string {
  return `pg_catalog.to_tsquery('pg_catalog.simple', $${bind.push(toPrefixQuery(words, '&'))})`
}

function toPrefixQuery(words: readonly string[], operator: '&' | '|'): string {
  return words
    .map((word) => `'${word.replaceAll('\\', '\\\\').replaceAll("'", "''")}':*`)
    .join(` ${operator} `)
}
