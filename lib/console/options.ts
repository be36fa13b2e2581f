import { createOptionChecks } from '../../models/option-checks'
import { createPermissionCheck } from '../http/demand'
import type { SignedInUser } from '../options'
import type { Settings } from '../read-options'
import { readOrganization, type RouterOptions } from '../http/access'
import { isObject } from '../keys/parse-input'
import type { Permissions } from '../keys/permissions'
import { darkAccentOf, isReadableOnWhite } from './accent'
import { languages, type Language } from './texts/texts'

/** The options of `console`. */
export interface ConsoleOptions<
  Permission extends string = string,
  User extends SignedInUser = SignedInUser,
> extends RouterOptions<Permission, User> {
  /**
   * The name of your product, at the top of the pages and in their titles.
   *
   * @default none
   */
  title?: string | undefined
  /** The address of your logo, for example `/logo.svg`. Its colours must be visible on white and on black. */
  logo?: string | undefined
  /**
   * The colour of buttons and links, for example `#5746af`. White text must be readable on it (a contrast of 4.5 to 1). The dark
   * theme lightens it for links.
   *
   * @default '#4b45c6'
   */
  accent?: string | undefined
  /**
   * The language of the texts.
   *
   * @default the language that the browser prefers, else English
   */
  language?: Language | undefined
  /** The address of your sign-in page, to which a user is sent who is not signed in. */
  signIn?: string | undefined
  /** A link at the top that leads back to your app. */
  back?: { readonly href: string; readonly text: string } | undefined
  /**
   * The target of the ready `curl` line of a new key: an address, or a path of your app, for example `/me`. Choose a route that every key may
   * call, so that the answer shows if the key works.
   *
   * @default '/'
   */
  example?: string | undefined
  /**
   * Makes the pages on which administrators manage the keys of all owners. It needs the option `isAdmin`.
   *
   * @default false
   */
  admin?: boolean | undefined
  /** Headings for the permissions in forms, for example `{ Graphs: ['READ_GRAPH', 'EXECUTE_GRAPH'] }`. */
  permissionGroups?: Readonly<Record<string, readonly Permission[]>> | undefined
}

/** The options of `console`, checked and complete. */
export type Look = ReturnType<typeof readConsoleOptions>

const names = [
  'title',
  'logo',
  'accent',
  'language',
  'signIn',
  'back',
  'example',
  'permissionGroups',
  'organization',
  'admin',
] as const satisfies (keyof ConsoleOptions)[]

const { check, refuseUnknownNames } = createOptionChecks('console')

/** Checks the options of `console`, and completes them with their defaults. Throws a `TypeError` for a mistake. */
export function readConsoleOptions(
  options: ConsoleOptions,
  settings: { permissions: Pick<Permissions, 'names'> } & Pick<Settings, 'idTypes'>,
) {
  if (!isObject(options)) throw new TypeError('console: the options must be an object')
  refuseUnknownNames(options, names)

  const { title, logo, accent = '#4b45c6', language, signIn, back, example } = options
  for (const [name, value] of Object.entries({ title, logo, signIn, example })) {
    check(name, value === undefined || isText(value), 'must be text', value)
  }
  check('accent', /^#[0-9a-f]{6}$/i.test(accent), 'must be a colour such as #5746af', accent)
  check(
    'accent',
    isReadableOnWhite(accent),
    'is too light: white text cannot be read on it',
    accent,
  )
  check(
    'language',
    language === undefined || languages.includes(language),
    `must be one of ${languages.join(', ')}`,
    language,
  )
  check(
    'back',
    back === undefined || (isText(back.href) && isText(back.text)),
    'must be { href, text }',
    back,
  )

  const { permissionGroups = {}, admin = false } = options
  check('admin', typeof admin === 'boolean', 'must be true or false', admin)
  check(
    'admin',
    !admin || options.organization === undefined,
    'excludes the option organization',
    admin,
  )
  for (const group of Object.values(permissionGroups)) {
    createPermissionCheck('console', group, settings.permissions)
  }
  return {
    title,
    logo,
    language,
    signIn,
    back,
    example,
    permissionGroups,
    admin,
    /** The kinds of owners that the app has. */
    ownerTypes: Object.entries(settings.idTypes).flatMap(([type, id]) =>
      id === undefined ? [] : [type as keyof Settings['idTypes']],
    ),
    accent,
    darkAccent: darkAccentOf(accent),
    organization: readOrganization('console', options.organization, settings),
  }
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== ''
}
