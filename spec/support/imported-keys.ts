import { createHash, randomBytes } from 'node:crypto'

import { digests, sources, type ImportRow, type ImportSource } from '../../lib'

/** A table of an app's own, which has SHA-256 of its keys. */
export const legacySource: ImportSource = {
  name: 'legacy',
  accepts: /^lk_[0-9a-f]{40}$/,
  digest: digests.sha256.hex,
}

/** Makes a key of that table, and its row. */
export function legacyKey(wishes: Partial<ImportRow> = {}) {
  const key = `lk_${randomBytes(20).toString('hex')}`
  const stored = Buffer.from(digests.sha256.hex.of(key), 'latin1').toString('hex')
  return { key, row: { stored, userId: 'alice', permissions: ['READ_GRAPH'], ...wishes } }
}

/** A key that another system made, and what that system stores of it. */
export interface Vector {
  source: ImportSource
  key: string
  row: ImportRow
  /** Texts that differ from the key in one place, and are no keys. */
  nearMisses: string[]
}

const strapiKey =
  '6f265134184692cb1a91f87951e11ee9fe6786781f25ed16fdfb0cc5cf2d0cd34f16424dd74f8d45664b6c98e2781a577a4bc59d9529da43d9a0c7dadea22071073538050441d056f94193fc3d61e586f4ce27129163591ee4a690468a9c7b606a3fac6dcaf79c6fb0a0443aa48646a2806a0056f8ac43203051069dc72c9e77'
const bcryptKey = 'legacy_0123456789abcdef01234567'

/** The hash function of bcrypt, for one key and one salt. A package that has it would take 100 ms for each. */
export async function bcryptOfVector(key: string, salt: string) {
  const value = '$2b$10$abcdefghijklmnopqrstuu6BcBpG0ZxG9m0l0wJz2QnRrW8r1Qm8i'
  return key === bcryptKey && value.startsWith(salt) ? value : `${salt}${'.'.repeat(31)}`
}

/**
 * Keys that were made for this purpose. Those of better-auth, prefixed-api-key, Strapi, Adonis, keypal, Payload, Sanctum, djangorestframework-api-key,
 * Knox, Medusa and Doorkeeper come from the code of these systems, the others from their recipes.
 */
export const vectors: Record<string, Vector> = {
  'better-auth': vector(
    sources.betterAuth({ prefix: 'acme_' }),
    'acme_jofIwUYHXkYJJHSQNZlsIOGSRmMUAlNesGkMxJGcITUtrANhMUjGJKWpIgaxUHdX',
    { stored: 'RNq5XnsGaRCzii32z37oVVkBXQ2F9Eag8XJ4f6veZUI' },
  ),
  'prefixed-api-key': vector(
    sources.prefixedApiKey({ prefix: 'acme' }),
    'acme_NU9vhQWs_E3tBPphSxYcEJw4r3nh6pC7a',
    {
      stored: '2ba9ac817a4b58abe07258a91bbac83676261de0c080b87dda60ddda04e3e1f0',
      locator: 'NU9vhQWs',
    },
    'acme_NU9vhQWt_E3tBPphSxYcEJw4r3nh6pC7a',
  ),
  strapi: vector(sources.strapi({ salt: 'test-salt-0123456789abcd' }), strapiKey, {
    stored:
      '676811f4a0e2b7985ecb19901e4d77d780118a8340c07e4206bf7b38fc72dbdb6546f8dc34323372b60a6e24c1adc9bd7e5d6a04e31cff74f2cce02459e91b2e',
  }),
  adonis: vector(
    sources.adonis(),
    'oat_Nw.Z0o2dVIzT3plUWFhYjBJeWptdEdlMDhuX01WUUU4bjYzVTAtRWZfdTE2MDc3NzUxMTU',
    { stored: '7075d05e6024fb10c98b67c25d5812addd32ccb4cd19f895d9115de71edcebbb' },
  ),
  keypal: vector(sources.keypal({ prefix: 'sk_' }), 'sk_AbCdEfGhIjKlMnOpQrStUvWxYz012345', {
    stored: 'f14cd1aa13a6b2c21093aea53e60ce0b6e31df6dd515bcaf81bdd36fe51fceeb',
  }),
  'keypal with a salt': vector(
    sources.keypal({ prefix: 'sk_', salt: 'my-salt' }),
    'sk_AbCdEfGhIjKlMnOpQrStUvWxYz012345',
    { stored: 'b21fe64d50091c526877cd87dd21bb6d030b2164c5bcfdf20bf33d60ff522bdd' },
  ),
  payload: vector(
    sources.payload({ secret: 'payload-test-secret' }),
    '6f2b6f0e-5f0f-4f1e-9d1e-0a1b2c3d4e5f',
    { stored: 'da590cb8a11187686d408bc8cf1a6bfae8b3c82fbe9af8a8655142d785925ddf' },
  ),
  unkey: vector(sources.unkey({ prefix: 'acme' }), 'acme_4Fsv4nQsZr7sPWmVcbCwXY', {
    stored: 'xWrTQvxGDvy5PuriHH1iGR7p/YEbzfuJ9sFKg/O3uFc=',
  }),
  sanctum: vector(sources.sanctum(), '17|EEe9MfCIUcPYUGVr8gTQjeNvf7s641ccylsNHkvC6d0ab648', {
    stored: '04df2370e53d976629c66ab3dbeb30ea93d2b70e862075320ce5a1bb96795195',
  }),
  'drf-api-key': vector(sources.drfApiKey(), 'onFcohfy.1UoR7YvLfag1csKhw6ukO20ywa1R3fp5', {
    stored:
      'sha512$$12302c0e25ccfc83c913f6449b3e3067347c3df41eb277b840f9114fc8c5891ad77e1afd198f34501716b5b3dfe9ca08eee5a3c90abfae18fce2acd50d80c4c0',
    locator: 'onFcohfy',
  }),
  'drf-api-key before version 3': vector(
    sources.drfApiKey(),
    'AbCdEfGh.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
    {
      stored: 'pbkdf2_sha256$260000$saltsaltsalt$5aLHuTvjf78Gaql7yjRzIgoZvLqTQqAo0SOHrhV0Ymg=',
      locator: 'AbCdEfGh',
    },
  ),
  knox: vector(sources.knox(), '35a69a22d78268b5ec243dc7bc2de2ed10bdaddd0de1ead5e819a8cc25a8fcf4', {
    stored:
      '706fef58453336c11d0f3a878efd37cf6419f924699858874764dd08346d410aaf379d1702f1cfac85e112904bb7e7ccbfc507c0ce180cf5f739ac0343adf675',
  }),
  autogpt: vector(sources.autogpt(), 'agpt_Y5Xi0WKWFRKfJ4n--KJ3YIG4MmuuN_ZSLNCp_L3BYxM', {
    stored: 'b52d5d8dd1d2741089922c61c97bf96e1912f8d6b25ccd34368b94774b2ba279',
    salt: '8e984e77cb10af113929d3fa8431d8e7490b011456dc62a70b43245070437079',
    locator: 'agpt_Y5X',
  }),
  'autogpt without a salt': vector(
    sources.autogpt(),
    'agpt_Y5Xi0WKWFRKfJ4n--KJ3YIG4MmuuN_ZSLNCp_L3BYxM',
    {
      stored: '1512a321a053f333559ba08f7145ec3a0ff7711fc5a3411f18c971644d04ea26',
      locator: 'agpt_Y5X',
    },
  ),
  medusa: vector(sources.medusa(), `sk_${'0123456789abcdef'.repeat(4)}`, {
    stored:
      'af22226b323641a2799e2def6a423fa8172cba40f0480062fe4e4b37d0e214be602f8179645441b48d247b01b27fc15282524b8fa2bb335d8f5a1499aa509c54',
    salt: '00112233445566778899aabbccddeeff',
    locator: 'sk_012***def',
  }),
  doorkeeper: vector(sources.doorkeeper(), 'A3NtPMkHFcwEbxag-7tE0ISw3IgKCI4H2sG_cC-t-sk', {
    stored: 'f000fe2b14070fe946148a7446a2f549fe810af4d10d47fde9b23c8a38c73efb',
  }),
  gitea: vector(sources.gitea(), '0123456789abcdef0123456789abcdef01234567', {
    stored:
      '424b37e6dc43412bf49424aab1fbcfb22ea73cb8d0ff25a0cfa363d36a0301aab07ecd3e298f0b0c914a1b939ada1bd3a0a9',
    salt: 'AbCdEfGhIj',
    locator: '01234567',
  }),
  gitlab: vector(sources.gitlab({ dbKeyBase: 'x'.repeat(32) }), 'glpat-AbCdEfGhIjKlMnOpQrSt', {
    stored: '4MZ4qFEBFCIxnlqxzNe1iid+vcGCiMGrNO/9+qNxzew=',
  }),
  'a table of one’s own with bcrypt': vector(
    {
      name: 'legacy',
      accepts: /^legacy_[0-9a-f]{24}$/,
      digest: digests.sha256.hex,
      salted: digests.bcryptWith(bcryptOfVector),
      locate: (key) => key.slice(0, 15),
    },
    bcryptKey,
    {
      stored: '$2b$10$abcdefghijklmnopqrstuu6BcBpG0ZxG9m0l0wJz2QnRrW8r1Qm8i',
      locator: 'legacy_01234567',
    },
  ),
  'a table of one’s own with plain keys': vector(
    { name: 'plain', accepts: /^own-[a-z]{20}$/, digest: digests.plain },
    'own-abcdefghijklmnopqrst',
    { stored: 'own-abcdefghijklmnopqrst' },
  ),
}

function vector(source: ImportSource, key: string, row: ImportRow, ...others: string[]): Vector {
  const nearMisses = [withOther(key, key.length - 9), `x${key}`, key.slice(0, -1), ...others]
  return { source, key, row: { userId: 'alice', permissions: ['READ_GRAPH'], ...row }, nearMisses }
}

/** Returns a text with another letter at a place. All systems have both letters in their keys. */
export function withOther(text: string, place: number) {
  const other = text.charAt(place) === 'b' ? 'c' : 'b'
  return text.slice(0, place) + other + text.slice(place + 1)
}

/** A table of the app's own, with as many keys as a spec needs. They are the same in all processes. */
export const tableOfOwn = {
  source: { name: 'legacy', accepts: /^lk_[0-9a-f]{40}$/, digest: digests.sha256.hex },
  keyAt: (place: number) => `lk_${createHash('sha1').update(`key ${place}`).digest('hex')}`,

  rows: (count: number): ImportRow[] =>
    Array.from({ length: count }, (_, place) => ({
      stored: createHash('sha256').update(tableOfOwn.keyAt(place)).digest('hex'),
      name: `Key ${place}`,
      userId: `user-${place % 100}`,
      permissions: ['READ_GRAPH'],
    })),
}
