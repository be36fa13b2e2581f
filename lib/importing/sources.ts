import { hmac, plain, sha256, sha512, withSuffix } from './digests'
import { doorkeeper, drfApiKey, knox, sanctum } from './framework-sources'
import { adonis, betterAuth, keypal, prefixedApiKey } from './node-sources'
import { directus, n8n } from './plain-sources'
import { autogpt, gitea, gitlab, medusa, payload, strapi, unkey } from './platform-sources'
import { bcryptWith, djangoPbkdf2, pbkdf2With, scryptWith } from './salted'

/**
 * The systems whose keys can be imported as they are. Each function returns a source for the option `imports`.
 *
 * @example
 * createApiKeys({ imports: [sources.betterAuth({ prefix: 'acme_' })], ... })
 */
export const sources = {
  adonis,
  autogpt,
  betterAuth,
  directus,
  doorkeeper,
  drfApiKey,
  gitea,
  gitlab,
  keypal,
  knox,
  medusa,
  n8n,
  payload,
  prefixedApiKey,
  sanctum,
  strapi,
  unkey,
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
