import { createOptionChecks, optionsOf } from '../../models/option-checks'
import { hmac, plain, sha256, sha512, withSuffix } from './digests'
import { doorkeeper, drfApiKey, knox, sanctum } from './framework-sources'
import { adonis, betterAuth, keypal, prefixedApiKey } from './node-sources'
import { directus, n8n } from './plain-sources'
import { autogpt, gitea, gitlab, medusa, payload, strapi, unkey } from './platform-sources'
import { bcryptWith, djangoPbkdf2, pbkdf2With, scryptWith } from './salted'
import type { ImportSource } from './source'

/** Makes a function refuse options that it does not have. A mistyped one would go unheeded, and no key would be accepted. */
function withOptions<Given extends readonly unknown[]>(
  name: string,
  make: (...given: Given) => ImportSource,
  ...known: (keyof NonNullable<Given[0]> & string)[]
): (...given: Given) => ImportSource {
  const { refuseUnknownNames } = createOptionChecks(`sources.${name}`)
  return (...given) => {
    refuseUnknownNames(optionsOf(given[0] as object | undefined), known)
    return make(...given)
  }
}

/**
 * The systems whose keys can be imported as they are. Each function returns a source for the option `imports`.
 *
 * @example
 * createApiKeys({ imports: [sources.betterAuth({ prefix: 'acme_' })], ... })
 */
export const sources = {
  adonis: withOptions('adonis', adonis, 'prefix'),
  autogpt: withOptions('autogpt', autogpt),
  betterAuth: withOptions('betterAuth', betterAuth, 'prefix', 'length', 'isPlain'),
  directus: withOptions('directus', directus, 'accepts'),
  doorkeeper: withOptions('doorkeeper', doorkeeper, 'isPlain'),
  drfApiKey: withOptions('drfApiKey', drfApiKey),
  gitea: withOptions('gitea', gitea),
  gitlab: withOptions('gitlab', gitlab, 'dbKeyBase'),
  keypal: withOptions('keypal', keypal, 'prefix', 'salt', 'algorithm', 'length'),
  knox: withOptions('knox', knox, 'prefix'),
  medusa: withOptions('medusa', medusa),
  n8n: withOptions('n8n', n8n),
  payload: withOptions('payload', payload, 'secret', 'collection', 'accepts', 'isLegacy'),
  prefixedApiKey: withOptions(
    'prefixedApiKey',
    prefixedApiKey,
    'prefix',
    'shortLength',
    'longLength',
  ),
  sanctum: withOptions('sanctum', sanctum, 'prefix', 'expirationMinutes'),
  strapi: withOptions('strapi', strapi, 'salt'),
  unkey: withOptions('unkey', unkey, 'prefix', 'bytes'),
}

/**
 * How systems store keys, for sources of your own.
 *
 * @example
 * const legacy = { name: 'legacy', accepts: /^lk_[0-9a-f]{40}$/, digest: digests.sha256.hex }
 */
export const digests = {
  sha256,
  sha512,
  hmac,
  plain,
  withSuffix,
  bcryptWith,
  djangoPbkdf2,
  pbkdf2With,
  scryptWith,
}
