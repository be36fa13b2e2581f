import v = require('valibot')

import { show, suggest, type OptionChecks } from '../../models/option-checks'
import { matching } from './fields'
import { vendorOf } from './foreign-prefixes'
import { isOwnPrefix, prefixOfSource } from './imported-prefix'
import { environmentLimits, limitFields, type LimitOverrides } from './limits'
import { isObject, withAll } from './parse-input'
import { shownLength } from './secret'

/** Keys that are kept apart from all other keys of the app, for example live keys and test keys. */
export interface Environment {
  /** `null` for all keys of an app without environments. */
  readonly name: string | null
  /** New keys begin with the first, and older keys with any of them. Imported keys have the last of them (imported-prefix.ts). */
  readonly keyPrefixes: readonly [string, ...string[]]
  /** Limits over the limits of the app that have the same names. */
  readonly limits: LimitOverrides
}

/** The environments of an app. */
export type Environments = ReturnType<typeof createEnvironments>

/** A key, as far as it says to which environment it belongs. */
export interface PlacedKey {
  /** The environment for which it was created; `null` for a key from before there were any. */
  readonly environment: string | null
  /** The start of its plain text, with six characters of its body. */
  readonly prefix: string
}

/** Makes the part that knows to which environment a key belongs. An app without environments has one, which has no name. */
export function createEnvironments(
  all: readonly [Environment, ...Environment[]],
  accepted: readonly string[] | null,
) {
  const hasNames = accepted !== null
  const names = hasNames ? all.map(({ name }) => String(name)) : []
  const [first] = all
  const byName = new Map(all.map((environment) => [environment.name, environment]))
  const byPrefix = new Map(
    all.flatMap((environment) => environment.keyPrefixes.map((prefix) => [prefix, environment])),
  )

  function ofPrefix(prefix: string): Environment | undefined {
    return byPrefix.get(prefix.slice(0, -1 - shownLength))
  }

  function ofKey({ environment, prefix }: PlacedKey): Environment | undefined {
    if (!hasNames) return first
    return environment === null ? ofPrefix(prefix) : byName.get(environment)
  }

  return {
    all,
    /** The names; empty in an app without environments. */
    names,
    /** The environment of a new key that names none: the only one that is accepted. Without it, a new key has to name one. */
    usual: accepted?.length === 1 ? accepted[0] : undefined,
    /** The prefixes of all keys, with those of imported keys. */
    keyPrefixes: [...byPrefix.keys()],

    /** The starts of our keys. */
    ownPrefixes: [...byPrefix.keys()].filter(isOwnPrefix),

    /** All prefixes of each environment, by the prefix of its new keys. */
    byNewPrefix: Object.fromEntries(all.map(({ keyPrefixes }) => [keyPrefixes[0], keyPrefixes])),

    /**
     * Returns the environments whose keys a guard or a call takes: those that it names, else those that the app accepts. `null` in
     * an app without environments. Throws a `TypeError` for a name that the app does not have.
     */
    acceptedBy(caller: string, given: unknown): readonly string[] | null {
      if (given === undefined) return accepted
      const named = [given].flat()
      if (named.length === 0) throw new TypeError(`${caller}: needs at least one environment`)
      const unknown = named.find((name) => !byName.has(name as string))
      if (unknown === undefined && hasNames) return named as string[]
      throw new TypeError(
        hasNames
          ? `${caller}: ${show(unknown)} is not one of the app's environments.${suggest(unknown, names)}`
          : `${caller}: environment needs the option environments of createApiKeys`,
      )
    },

    /** Returns the environment for a new key, given the name that its parsed input has. */
    ofNewKey({ environment }: { environment?: string | undefined }): Environment {
      return (environment !== undefined && byName.get(environment)) || first
    },

    /** Returns the environment of a key: as its row says, else by its prefix. `undefined` if the app has no such environment. */
    ofKey,

    /** Returns the member of a record that names the environment, in an app that has environments. */
    shownOf(key: PlacedKey): { environment?: string | null } {
      return hasNames ? { environment: key.environment ?? ofKey(key)?.name ?? null } : {}
    },

    /** Returns the environment of a secret of a key; `undefined` if the row of the key and the start of the secret disagree. */
    ofSecret(key: PlacedKey, prefix: string): Environment | undefined {
      const environment = ofKey(key)
      return !hasNames || environment === ofPrefix(prefix) ? environment : undefined
    },
  }
}

const prefixRule =
  'must be 2 to 16 lower-case letters, digits and underscores, begin with a letter and not end in an underscore'

const keyPrefix = matching(/^[a-z][a-z0-9_]{0,14}[a-z0-9]$/, prefixRule)

const formerPrefixes = v.optional(v.array(keyPrefix, 'must be a list of key prefixes'), [])

const environmentFields = { prefix: keyPrefix, formerPrefixes, limits: environmentLimits }

const environment = v.pipe(
  v.unknown(),
  v.transform((value) => (typeof value === 'string' ? { prefix: value } : value)),
  v.custom<object>(isObject, 'must be a key prefix, or { prefix, formerPrefixes, limits }'),
  withAll(environmentFields),
  v.object(environmentFields),
)

/** The options that say how keys begin, and which are kept apart. `readEnvironments` has the rules between them. */
export const environmentOptions = {
  keyPrefix: v.undefinedable(keyPrefix),
  formerPrefixes,
  environments: v.undefinedable(
    v.pipe(
      v.custom<object>(
        (value) => isObject(value) && !Array.isArray(value),
        'must be an object of key prefixes, by the names of environments',
      ),
      v.transform((value) => new Map<string, unknown>(Object.entries(value))),
      v.map(
        matching(
          /^[a-z][a-z0-9_]{0,31}$/,
          'must have a name of at most 32 lower-case letters, digits and underscores, with a letter first',
        ),
        environment,
      ),
      v.check(({ size }) => size > 0, 'must name at least one'),
    ),
  ),
  acceptedEnvironments: v.undefinedable(
    v.array(v.string('must be the name of an environment'), 'must be a list of environments'),
  ),
  allowForeignPrefix: v.optional(v.boolean('must be true or false'), false),
}

type EnvironmentOptions = {
  [Name in keyof typeof environmentOptions]: v.InferOutput<(typeof environmentOptions)[Name]>
}

/** Throws a `TypeError` for an unknown option of an environment. */
export function refuseUnknownOptions(environments: unknown, checks: OptionChecks) {
  for (const [name, given] of Object.entries(Object(environments))) {
    if (!isObject(given)) continue
    const path = `environments.${name}.`
    checks.refuseUnknownNames(given, Object.keys(environmentFields), path)
    for (const [limit, fields] of Object.entries(Object(Reflect.get(given, 'limits')))) {
      if (!isObject(fields)) continue
      checks.refuseUnknownNames(fields, Object.keys(limitFields), `${path}limits.${limit}.`)
    }
  }
}

/** A source of imported keys, and the environment that its keys belong to. */
interface PlacedSource {
  name: string
  environment?: string | undefined
}

/**
 * Reads the environments of an app from its options: those of `environments`, or one for the keys of `keyPrefix`. The imported keys
 * of a source belong to one environment.
 */
export function readEnvironments(
  options: EnvironmentOptions,
  sources: readonly PlacedSource[],
  { check }: OptionChecks,
) {
  const { keyPrefix, formerPrefixes, environments, acceptedEnvironments: accepted } = options
  const isPlain = environments === undefined
  check('keyPrefix', keyPrefix !== undefined || !isPlain, prefixRule, keyPrefix)
  check('keyPrefix', keyPrefix === undefined || isPlain, 'must not be given beside environments')
  const isOfPlain = isPlain || formerPrefixes.length === 0
  check('formerPrefixes', isOfPlain, 'must be given in environments, beside the prefix')
  const needsThem = 'must not be given without environments'
  check('acceptedEnvironments', accepted === undefined || !isPlain, needsThem)

  const all = isPlain
    ? [{ name: null, keyPrefixes: [keyPrefix ?? '', ...formerPrefixes] as const, limits: {} }]
    : [...environments].map(([name, { prefix, formerPrefixes, limits }]) => ({
        name,
        keyPrefixes: [prefix, ...formerPrefixes] as const,
        limits,
      }))
  refuseRepeats(all, check)
  if (!options.allowForeignPrefix) for (const one of all) refuseForeign(one, check)
  if (!isPlain) checkAccepted(accepted, [...environments.keys()], check)
  const [first, ...others] = placeSources(all, sources, accepted, check)
  if (!first) throw new TypeError('createApiKeys: the option environments must name at least one')
  return createEnvironments([first, ...others], accepted ?? null)
}

/** Gives each environment the sources of imported keys that belong to it. */
function placeSources(
  all: readonly Environment[],
  sources: readonly PlacedSource[],
  accepted: readonly string[] | undefined,
  check: OptionChecks['check'],
): Environment[] {
  const isPlain = all[0]?.name === null
  const usual = accepted?.length === 1 ? accepted[0] : null
  for (const { name, environment = usual } of sources) {
    const isPlaced = isPlain ? environment === null : all.some((one) => one.name === environment)
    const rule = isPlain ? 'must not be given without environments' : 'must be one of environments'
    check(`imports.${name}.environment`, isPlaced, rule, environment)
  }
  return all.map((one) => {
    const own = sources.filter(({ environment = usual }) => environment === one.name)
    const prefixes = own.map(({ name }) => prefixOfSource(name))
    return { ...one, keyPrefixes: [...one.keyPrefixes, ...prefixes] }
  })
}

function refuseRepeats(all: readonly Environment[], check: OptionChecks['check']) {
  const seen = new Set<string>()
  for (const { name, keyPrefixes } of all) {
    for (const prefix of keyPrefixes) {
      const option = name === null ? 'formerPrefixes' : `environments.${name}`
      check(option, !seen.has(prefix), 'must not repeat a prefix', prefix)
      seen.add(prefix)
    }
  }
}

/** Refuses what new keys would begin with. Keys with a former prefix are out already. */
function refuseForeign({ name, keyPrefixes: [prefix] }: Environment, check: OptionChecks['check']) {
  const vendor = vendorOf(prefix)
  check(
    name === null ? 'keyPrefix' : `environments.${name}`,
    vendor === undefined,
    `must not be ${prefix}: secret scanners would take your keys for keys of ${vendor}, and report them there. Choose another prefix, or set allowForeignPrefix: true`,
  )
}

function checkAccepted(
  accepted: readonly string[] | undefined,
  names: readonly string[],
  check: OptionChecks['check'],
) {
  const option = 'acceptedEnvironments'
  const rule = 'must name the environments whose keys pass a guard that does not say which'
  check(option, accepted !== undefined && accepted.length > 0, rule, accepted)
  for (const name of accepted ?? []) {
    check(option, names.includes(name), `must be some of ${names.join(', ')}`, name)
  }
  check(option, new Set(accepted).size === accepted?.length, 'must not repeat a name')
}
