import { hmac, plain, sha256, sha512, withSuffix } from './digests'
import { doorkeeper, drfApiKey, knox, sanctum } from './framework-sources'
import { adonis, betterAuth, keypal, prefixedApiKey } from './node-sources'
import { directus, n8n } from './plain-sources'
import { autogpt, gitea, gitlab, medusa, payload, strapi, unkey } from './platform-sources'
import { bcryptWith, djangoPbkdf2, pbkdf2With, scryptWith } from './salted'
import {
  flag,
  minutes,
  oneOf,
  pattern,
  prefix,
  required,
  secret,
  size,
  slug,
  withOptions,
} from './source-options'

/**
 * The systems whose keys can be imported as they are. Each function returns a source for the option `imports`.
 *
 * @example
 * createApiKeys({ imports: [sources.betterAuth({ prefix: 'acme_' })], ... })
 */
export const sources = {
  adonis: withOptions('adonis', adonis, { prefix }),
  autogpt: withOptions('autogpt', autogpt, {}),
  betterAuth: withOptions('betterAuth', betterAuth, { prefix, length: size, isPlain: flag }),
  directus: withOptions('directus', directus, { accepts: pattern }),
  doorkeeper: withOptions('doorkeeper', doorkeeper, { isPlain: flag }),
  drfApiKey: withOptions('drfApiKey', drfApiKey, {}),
  gitea: withOptions('gitea', gitea, {}),
  gitlab: withOptions('gitlab', gitlab, { dbKeyBase: required(secret) }),
  keypal: withOptions('keypal', keypal, {
    prefix,
    salt: secret,
    algorithm: oneOf('sha256', 'sha512'),
    length: size,
  }),
  knox: withOptions('knox', knox, { prefix }),
  medusa: withOptions('medusa', medusa, {}),
  n8n: withOptions('n8n', n8n, {}),
  payload: withOptions('payload', payload, {
    secret: required(secret),
    collection: slug,
    accepts: pattern,
    isLegacy: flag,
  }),
  prefixedApiKey: withOptions('prefixedApiKey', prefixedApiKey, {
    prefix: required(prefix),
    shortLength: size,
    longLength: size,
  }),
  sanctum: withOptions('sanctum', sanctum, { prefix, expirationMinutes: minutes }),
  strapi: withOptions('strapi', strapi, { salt: required(secret) }),
  unkey: withOptions('unkey', unkey, { prefix, bytes: size }),
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
