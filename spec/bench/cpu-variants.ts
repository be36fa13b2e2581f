/** The builds that are compared: this one, and the build of the folder that `--against` names. */
export type BuildName = 'this' | 'other'

/** The guards of the apps, and `verify()` without an app, with the tokens that each is asked with. */
export const cpuVariants = {
  bare: { title: 'bare Express', tokens: 'none' },
  guard: { title: '**ours, guard**', tokens: 'plain' },
  guardKeyed: { title: '**ours, guard, with `secrets`**', tokens: 'keyed' },
  control: { title: 'bare Express once more (the control)', tokens: 'none' },
  guardPolicies: { title: '**ours, guard, with addresses and limits**', tokens: 'bound' },
  guardOrganization: { title: '**ours, guard, key of an organization**', tokens: 'organization' },
  guardImplied: { title: '**ours, guard, implied permission**', tokens: 'implied' },
  guardResources: { title: '**ours, guard, key bound to 100 resources**', tokens: 'resources' },
  passportMap: { title: 'passport-http-bearer with a Map', tokens: 'plain' },
  passport: { title: '**ours, through Passport**', tokens: 'plain' },
  bareRefusal: { title: 'bare Express, answering the same 401', tokens: 'none' },
  garbage: { title: '**ours, guard, with `secrets`: garbage**', tokens: 'garbage' },
  verify: { title: '`verify()`, without HTTP', tokens: 'plain' },
} as const satisfies Record<string, { title: string; tokens: string }>

export type CpuVariantName = keyof typeof cpuVariants
