/** The builds that are compared: this one, and the build of the folder that `--against` names. */
export type BuildName = 'this' | 'other'

/**
 * The guards of the apps, and `verify()` without an app, with the instance of the library in each, the tokens that each is asked with,
 * and the variant beside it. Without an instance, the app does not load the library.
 */
export const cpuVariants = {
  bare: { title: 'bare Express', instance: null, tokens: 'none', base: null },
  guard: { title: '**ours, guard**', instance: 'plain', tokens: 'plain', base: 'bare' },
  guardKeyed: {
    title: '**ours, guard, with `secrets`**',
    instance: 'keyed',
    tokens: 'keyed',
    base: 'bare',
  },
  control: {
    title: 'bare Express once more (the control)',
    instance: null,
    tokens: 'none',
    base: 'bare',
  },
  guardPolicies: {
    title: '**ours, guard, with addresses and limits**',
    instance: 'bound',
    tokens: 'bound',
    base: 'bare',
  },
  guardOrganization: {
    title: '**ours, guard, key of an organization**',
    instance: 'others',
    tokens: 'organization',
    base: 'guard',
  },
  guardImplied: {
    title: '**ours, guard, implied permission**',
    instance: 'others',
    tokens: 'implied',
    base: 'guard',
  },
  guardResources: {
    title: '**ours, guard, key bound to 100 resources**',
    instance: 'others',
    tokens: 'resources',
    base: 'guard',
  },
  passportMap: {
    title: 'passport-http-bearer with a Map',
    instance: null,
    tokens: 'plain',
    base: 'bare',
  },
  passport: {
    title: '**ours, through Passport**',
    instance: 'plain',
    tokens: 'plain',
    base: 'passportMap',
  },
  bareRefusal: {
    title: 'bare Express, answering the same 401',
    instance: null,
    tokens: 'none',
    base: null,
  },
  garbage: {
    title: '**ours, guard, with `secrets`: garbage**',
    instance: 'keyed',
    tokens: 'garbage',
    base: 'bareRefusal',
  },
  verify: { title: '`verify()`, without HTTP', instance: 'plain', tokens: 'plain', base: null },
} as const satisfies Record<string, CpuVariant>

interface CpuVariant {
  title: string
  instance: InstanceName | null
  tokens: string
  base: string | null
}

export type CpuVariantName = keyof typeof cpuVariants

/** The instances of the library, each with tables of its own. A build from before there were organizations has no `others`. */
export type InstanceName = 'plain' | 'keyed' | 'bound' | 'others'
