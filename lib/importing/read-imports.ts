import { show, type OptionChecks } from '../../models/option-checks'
import { isObject } from '../keys/parse-input'
import { faultOfPattern } from './pattern'
import type { ImportSource } from './source'

const fields = [
  'name',
  'accepts',
  'digest',
  'salted',
  'digested',
  'locate',
  'check',
  'schemes',
  'headers',
  'environment',
  'readRow',
] satisfies (keyof ImportSource)[]

/** RFC 9110, section 5.6.2. */
const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]{1,64}"
/** Payload has a word before its scheme. */
const scheme = new RegExp(`^${token}(?: ${token})?$`)
const header = new RegExp(`^(?!(?:authorization|cookie)$)${token}$`, 'i')

/** Reads the option `imports`. Refuses a source that would be slow, or would let keys of another kind pass. */
export function readImports(given: unknown, checks: OptionChecks): readonly ImportSource[] {
  if (given === undefined) return []
  checks.check('imports', Array.isArray(given), 'must be a list of sources', given)
  const seen = new Set<string>()
  return (given as unknown[]).map((source, index) => readSource(source, index, seen, checks))
}

function readSource(given: unknown, index: number, seen: Set<string>, checks: OptionChecks) {
  checks.check(`imports[${index}]`, isObject(given), 'must be a source of keys', given)
  const source = given as ImportSource
  const { name, accepts, digest, salted } = source
  const isNamed = typeof name === 'string' && /^[a-z][a-z0-9-]{0,31}$/.test(name)
  const nameRule = 'must be at most 32 lower-case letters, digits and dashes, with a letter first'
  checks.check(`imports[${index}].name`, isNamed, nameRule, name)
  const path = `imports.${name}`
  checks.check(path, !seen.has(name), 'must not be there twice: give one of them another name')
  seen.add(name)
  checks.refuseUnknownNames(source, fields, `${path}.`)

  checks.check(`${path}.accepts`, accepts instanceof RegExp, 'must be a pattern', accepts)
  const fault = faultOfPattern(accepts)
  checks.check(`${path}.accepts`, fault === null, `${fault}, it is ${show(accepts)}`)
  const { of, read } = Object(digest) as Partial<ImportSource['digest']>
  checks.check(`${path}.digest`, isFunction(of) && isFunction(read), 'must be { of, read }')
  if (salted !== undefined) {
    const isSalted = isFunction(Object(salted).read) && isFunction(Object(salted).derive)
    checks.check(`${path}.salted`, isSalted, 'must be { read, derive }')
    const rule = 'is required beside salted: the salt of a key is found by a part of the key'
    checks.check(`${path}.locate`, source.locate !== undefined, rule)
  }
  for (const part of ['digested', 'locate', 'check', 'readRow'] as const) {
    const isFine = source[part] === undefined || isFunction(source[part])
    checks.check(`${path}.${part}`, isFine, 'must be a function', source[part])
  }
  checkNames(`${path}.schemes`, source.schemes, scheme, 'schemes of Authorization', checks)
  checkNames(`${path}.headers`, source.headers, header, 'headers besides Authorization', checks)
  return source
}

function checkNames(
  path: string,
  names: unknown,
  shape: RegExp,
  what: string,
  { check }: OptionChecks,
) {
  const isFine =
    names === undefined ||
    (Array.isArray(names) && names.every((name) => typeof name === 'string' && shape.test(name)))
  check(path, isFine, `must be a list of ${what}`, names)
}

function isFunction(value: unknown): boolean {
  return typeof value === 'function'
}
