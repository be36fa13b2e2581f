import type { ImportSource } from '../importing/source'
import { secretSyntax } from '../keys/secret'
import type { Settings } from '../read-options'

/** A form of keys that a scanner can find in texts, because all of them begin alike. */
export interface ScannedForm {
  /** Names the form, for example `acme_api_key`. */
  id: string
  /** The text with which all keys begin. */
  start: string
  /** Matches the keys of the form. Every engine reads it alike, once it has the groups as it wants them. */
  patternWith(groupStart: '(' | '(?:'): string
}

/** The shortest start by which keys are told from other texts. */
const shortestStart = 3

/** Returns the forms of all keys of an app, former and imported ones too, and the sources whose keys no scanner can find. */
export function scannedForms({
  environments,
  imports,
}: Pick<Settings, 'environments' | 'imports'>): { forms: ScannedForm[]; unscanned: string[] } {
  const own = environments.ownPrefixes.map((prefix) => ({
    id: `${prefix}_api_key`,
    start: `${prefix}_`,
    patternWith: () => `${prefix}_${secretSyntax}`,
  }))
  const imported = imports.map((source) => ({ source, form: formOfSource(source) }))
  return {
    forms: [...own, ...imported.flatMap(({ form }) => form ?? [])],
    unscanned: imported.filter(({ form }) => !form).map(({ source }) => source.name),
  }
}

function formOfSource({ name, accepts }: ImportSource): ScannedForm | undefined {
  const tokens = tokensOf(withFixedStart(accepts.source.slice(1, -1)), accepts.flags)
  if (!tokens) return undefined
  const rest = tokens.findIndex(({ literal }) => literal === undefined)
  const literals = rest === -1 ? tokens : tokens.slice(0, rest)
  // A quantifier belongs to the character before it.
  const isRepeated = /^[{?]/.test(tokens[literals.length]?.text ?? '')
  const start = (isRepeated ? literals.slice(0, -1) : literals)
    .map(({ literal }) => literal)
    .join('')
  if (start.length < shortestStart) return undefined
  return {
    id: `${name}_imported_key`,
    start,
    patternWith: (groupStart) =>
      tokens.map(({ text }) => (text === '(' ? groupStart : text)).join(''),
  }
}

/** Leaves out the optional parts with which a pattern begins, up to an optional prefix, which the scanned keys have to have. */
function withFixedStart(source: string): string {
  const [whole = '', part = ''] =
    /^\(\?:((?:\[(?:\\.|[^\]\\])*\]|\\.|[^()|[\\])*)\)\?/.exec(source) ?? []
  if (whole === '') return source
  const rest = source.slice(whole.length)
  return /^[\w-]{3,}$/.test(part) ? part + rest : withFixedStart(rest)
}

/** A part of a pattern, as every engine reads it. */
interface Token {
  text: string
  /** The character, if the part matches no other. */
  literal?: string
}

const parts =
  /\((?:\?:)?|\)|\||(\{\d+(?:,\d+)?\}|\?)\??|\[(?:\\.|[^\]\\])*\]|\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|./gs

/** Reads a pattern; `undefined` if a part of it matches characters that engines write in different ways. */
function tokensOf(source: string, flags: string): Token[] | undefined {
  const tokens: Token[] = []
  for (const [part, quantifier] of source.matchAll(parts)) {
    if (quantifier !== undefined) tokens.push({ text: quantifier })
    else if (part.startsWith('(')) tokens.push({ text: '(' })
    else if (part === ')' || part === '|') tokens.push({ text: part })
    else {
      const token = characterOf(part, flags)
      if (!token) return undefined
      tokens.push(token)
    }
  }
  return tokens
}

const printable = Array.from({ length: 126 - 32 }, (_, at) => String.fromCharCode(33 + at))

/** Writes the characters that a part of a pattern matches as the character itself, or as a class of letters, digits and a few others. */
function characterOf(part: string, flags: string): Token | undefined {
  const shape = new RegExp(`^${part}$`, flags)
  const matched = printable.filter((character) => shape.test(character))
  const [literal, second] = matched
  if (literal === undefined || matched.some((character) => '[]^\\'.includes(character))) {
    return undefined
  }
  if (second === undefined) return { text: literal.replace(/[$()*+.?{|}]/, '\\$&'), literal }
  // At the end of a class, the dash stands for itself.
  const dash = matched.includes('-') ? '-' : ''
  return { text: `[${rangesOf(matched.filter((character) => character !== '-'))}${dash}]` }
}

function rangesOf(characters: readonly string[]): string {
  const runs: string[][] = []
  for (const character of characters) {
    const last = runs.at(-1)
    const isNext = last?.at(-1)?.charCodeAt(0) === character.charCodeAt(0) - 1
    if (last && isNext) last.push(character)
    else runs.push([character])
  }
  return runs.map((run) => (run.length > 2 ? `${run[0]}-${run.at(-1)}` : run.join(''))).join('')
}
