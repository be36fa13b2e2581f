/**
 * The servers that are compared, in the order of the measurement. Servers that are compared most closely are
 * neighbours.
 */
export const variants = {
  bare: { title: 'bare Express', keys: 'none' },
  guard: { title: '**ours, guard**', keys: 'ours' },
  control: { title: 'bare Express once more (the control)', keys: 'none' },
  guardKeyed: { title: '**ours, guard, with `secrets`**', keys: 'oursKeyed' },
  guardPolicies: { title: '**ours, guard, with policies and limits**', keys: 'oursBound' },
  map: { title: 'Express with a Map', keys: 'map' },
  passportMap: { title: 'passport-http-bearer with a Map', keys: 'map' },
  passport: { title: '**ours, through Passport**', keys: 'ours' },
  sequelize: { title: 'Sequelize by hand (`findOne` and `update`)', keys: 'sequelize' },
  betterAuth: { title: "better-auth's API keys", keys: 'betterAuth' },
  guardStrict: {
    title: '**ours, guard, with `secrets`, failed attempts limited**',
    keys: 'oursKeyed',
  },
  bareRefusal: { title: 'bare Express, answering the same 401', keys: 'none' },
} as const satisfies Record<string, { title: string; keys: KeyStorage }>

export type VariantName = keyof typeof variants

/** The place where a variant has its keys. */
export type KeyStorage =
  'none' | 'map' | 'ours' | 'oursKeyed' | 'oursBound' | 'sequelize' | 'betterAuth'
