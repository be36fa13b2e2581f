/** The longest key that a source may accept. */
export const longestKey = 1_024

/** The most ways in which a pattern may match a text. Each is tried in vain for the worst text, at every request. */
const mostWays = 10_000

/** A part of a pattern: the longest text that it matches, and in how many ways it may match. */
interface Extent {
  longest: number
  ways: number
}

/**
 * Returns the fault of a pattern that decides which tokens are keys of a source; `null` if it has none. Every client can send any text, so
 * the pattern must match whole texts of a bounded length, and must not try too many ways to match. The check reads the pattern itself. It
 * knows literals, classes, groups, alternatives and bounded quantifiers.
 */
export function faultOfPattern(pattern: RegExp): string | null {
  const { source, flags } = pattern
  if (!/^[iu]*$/.test(flags)) return 'must have no flags but i and u'
  if (!source.startsWith('^') || !/(?<!\\)(?:\\\\)*\$$/.test(source))
    return 'must begin with ^ and end with $'

  const extent = readExtent(source.slice(1, -1))
  if (typeof extent === 'string') return extent
  if (pattern.test('')) return 'must not match an empty text'
  if (extent.longest > longestKey) return `must match at most ${longestKey} characters`
  if (extent.ways > mostWays) return `can match in more than ${mostWays} ways, which takes too long`
  return null
}

/** Returns the longest text that a sound pattern matches. */
export function longestMatch(pattern: RegExp): number {
  const extent = readExtent(pattern.source.slice(1, -1))
  return typeof extent === 'string' ? 0 : extent.longest
}

function readExtent(text: string): Extent | string {
  const reader = { text, at: 0, depth: 0 }
  try {
    const extent = readAlternatives(reader)
    if (reader.at < text.length) throw new PatternFault('has an unmatched )')
    return extent
  } catch (error) {
    if (error instanceof PatternFault) return error.message
    throw error
  }
}

class PatternFault extends Error {}

interface Reader {
  readonly text: string
  at: number
  depth: number
}

function readAlternatives(reader: Reader): Extent {
  const all: Extent[] = [readSequence(reader)]
  while (reader.text[reader.at] === '|') {
    // Without a group, ^ and $ would each belong to one of the alternatives.
    if (reader.depth === 0) throw new PatternFault('must have its alternatives in a group')
    reader.at++
    all.push(readSequence(reader))
  }
  return {
    longest: Math.max(...all.map(({ longest }) => longest)),
    ways: all.reduce((sum, { ways }) => sum + ways, 0),
  }
}

function readSequence(reader: Reader): Extent {
  const whole = { longest: 0, ways: 1 }
  while (reader.at < reader.text.length && !/[|)]/.test(reader.text.charAt(reader.at))) {
    const part = readRepeated(reader)
    whole.longest += part.longest
    whole.ways *= part.ways
  }
  return whole
}

function readRepeated(reader: Reader): Extent {
  const { longest, ways } = readAtom(reader)
  const rest = reader.text.slice(reader.at)
  if (/^(?:[*+]|\{\d+,\})/.test(rest))
    throw new PatternFault('must bound each repetition, such as {1,64}')
  const [quantifier, least = '0', most = least] =
    /^\{(\d{1,4})(?:,(\d{1,4}))?\}|^\?/.exec(rest) ?? []
  if (quantifier === undefined) return { longest, ways }
  reader.at += quantifier.length
  if (reader.text[reader.at] === '?') reader.at++
  const [from, to] = quantifier === '?' ? [0, 1] : [Number(least), Number(most)]
  let repeated = 0
  // Repetitions of an atom that matches in one way differ in their number alone.
  for (let times = from; times <= to; times++) repeated += ways ** times
  return { longest: longest * to, ways: repeated }
}

const one: Extent = { longest: 1, ways: 1 }

function readAtom(reader: Reader): Extent {
  const { text } = reader
  const first = text.charAt(reader.at)
  if (first === '(') return readGroup(reader)
  if (first === '[') {
    const [whole] = /^\[(?:\\.|[^\]\\])*\]/s.exec(text.slice(reader.at)) ?? []
    if (whole === undefined) throw new PatternFault('has a class without an end')
    reader.at += whole.length
    return one
  }
  if (/[\^$*+?{]/.test(first)) throw new PatternFault(`must not have ${first} there`)
  if (first === '\\') {
    // References to groups and assertions have no extent of their own.
    if (/[bBk1-9cpP]/.test(text.charAt(reader.at + 1)))
      throw new PatternFault('must not have \\b, \\p or references')
    const [escape = ''] =
      /^\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)/s.exec(text.slice(reader.at)) ?? []
    reader.at += escape.length
    return one
  }
  reader.at++
  return one
}

function readGroup(reader: Reader): Extent {
  reader.at++
  if (reader.text[reader.at] === '?') {
    if (!reader.text.startsWith('?:', reader.at))
      throw new PatternFault('must have only groups such as (…) and (?:…)')
    reader.at += 2
  }
  reader.depth++
  const extent = readAlternatives(reader)
  reader.depth--
  if (reader.text[reader.at] !== ')') throw new PatternFault('has a group without an end')
  reader.at++
  return extent
}
