import { createOptionChecks, optionsOf } from '../../models/option-checks'
import type { ImportSource } from './source'

/** A rule for the value of an option, and the words for a value that breaks it. */
interface Rule {
  isFine: (value: unknown) => boolean
  must: string
  isRequired?: true
  /** True for a value that no message shows. */
  isSecret?: true
}

export const prefix: Rule = {
  isFine: (value) => typeof value === 'string' && /^[A-Za-z0-9_-]{0,64}$/.test(value),
  must: 'must have at most 64 letters, digits, "_" and "-"',
}

export const secret: Rule = {
  isFine: (value) => typeof value === 'string' && value !== '',
  must: 'must be the secret of the other system, a text',
  isSecret: true,
}

export const flag: Rule = {
  isFine: (value) => typeof value === 'boolean',
  must: 'must be true or false',
}

/** A number of characters or bytes. No source accepts a longer key. */
export const size: Rule = {
  isFine: (value) => Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 1_024,
  must: 'must be a whole number from 1 to 1024',
}

export const minutes: Rule = {
  isFine: (value) => Number.isFinite(value) && Number(value) > 0,
  must: 'must be a number of minutes above 0',
}

export const pattern: Rule = {
  isFine: (value) => value instanceof RegExp,
  must: 'must be a pattern',
}

export const slug: Rule = {
  isFine: (value) => typeof value === 'string' && /^[\w-]{1,64}$/.test(value),
  must: 'must be the slug of a collection: at most 64 letters, digits, "_" and "-"',
}

/** A value that is one of some texts. */
export function oneOf(...texts: readonly string[]): Rule {
  return {
    isFine: (value) => typeof value === 'string' && texts.includes(value),
    must: `must be one of ${texts.join(', ')}`,
  }
}

/** A value that has to be given. */
export function required(rule: Rule): Rule {
  return { ...rule, isRequired: true }
}

/**
 * Makes a function refuse options that it does not have, and values that they must not have. With a mistake in them, no key would be accepted.
 */
export function withOptions<Given extends readonly unknown[]>(
  name: string,
  make: (...given: Given) => ImportSource,
  rules: Readonly<Record<keyof NonNullable<Given[0]> & string, Rule>>,
): (...given: Given) => ImportSource {
  const { check, refuseUnknownNames } = createOptionChecks(`sources.${name}`)
  return (...given) => {
    const options: Readonly<Record<string, unknown>> = optionsOf(
      given[0] as Record<string, unknown> | undefined,
    )
    refuseUnknownNames(options, Object.keys(rules))
    for (const [option, rule] of Object.entries<Rule>(rules)) {
      const value = options[option]
      const isFine = value === undefined ? rule.isRequired !== true : rule.isFine(value)
      check(option, isFine, rule.must, ...(rule.isSecret ? [] : ([value] as const)))
    }
    return make(...given)
  }
}
