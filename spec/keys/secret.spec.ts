import { createHash, createHmac, hkdfSync } from 'node:crypto'

import * as fc from 'fast-check'

import {
  asSent,
  createSecretFormat,
  fromStoredHash,
  longerNameEnd,
  toStoredHash,
  type SecretFormat,
} from '../../lib/keys/secret'
import { countVerifications, createTestApiKeys, type TestApiKeys } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { newKey } from '../support/keys'
import { runsOf } from '../support/runs'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const secret = 'a secret of the app, 32 bytes and then some'
const otherSecret = 'one more secret of the app, with other bytes'

const characters = fc.oneof(
  fc.constantFrom(...alphabet.split('')),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
)
const place = fc.nat({ max: 'agpt_'.length + 43 + 8 })

/** Ways in which the text of a key may be altered. */
const alterations = {
  'a change of one character': fc.tuple(place, characters).map(
    ([at, other]) =>
      (key: string) =>
        key.slice(0, at) + other + key.slice(at + 1),
  ),

  'a truncation': fc.tuple(place, place).map(
    ([from, to]) =>
      (key: string) =>
        key.slice(Math.min(from, to), Math.max(from, to)),
  ),

  'an extension': fc
    .tuple(place, fc.oneof(characters, fc.string({ minLength: 1 }), fc.constantFrom(' ', '\n')))
    .map(
      ([at, more]) =>
        (key: string) =>
          key.slice(0, at) + more + key.slice(at),
    ),

  'a change of case': fc
    .tuple(place, fc.constantFrom(1, 100), fc.constantFrom(swapCase, toUpperCase, toLowerCase))
    .map(([at, length, change]) => (key: string) => {
      return key.slice(0, at) + change(key.slice(at, at + length)) + key.slice(at + length)
    }),
}

type FormatOptions = Partial<Parameters<typeof createSecretFormat>[0]>

/** A format that mints keys with the first of its prefixes. */
function createFormat({ keyPrefixes = ['agpt'], ...options }: FormatOptions = {}) {
  const format = createSecretFormat({ keyPrefixes, secrets: [], acceptUnkeyed: false, ...options })
  return { ...format, mint: () => format.mint(keyPrefixes[0] ?? '') }
}

/** The hash under which a plain-text key is looked up; `null` if it is not looked up. */
function readHash(format: Pick<SecretFormat, 'parse'>, plainTextKey: string): string | null {
  const digest = format.parse(asSent(plainTextKey))
  return digest === null ? null : toStoredHash(digest)
}

const unkeyed = createFormat()
const keyed = createFormat({ secrets: [secret] })

const manyKeys = runsOf(100_000, 20_000)

describe('createSecretFormat', () => {
  it(`mints ${manyKeys} different keys, of characters drawn uniformly`, () => {
    const many = Array.from({ length: manyKeys }, () => unkeyed.mint())

    expect(new Set(many.map(({ plainTextKey }) => plainTextKey)).size).toBe(many.length)
    expect(new Set(many.map(({ hash }) => hash)).size).toBe(many.length)

    // With 61 degrees of freedom, a fair draw exceeds 160 less than once in 10^9 times.
    const places = countByPlace(many.map(({ plainTextKey }) => plainTextKey.slice(5, 48)))
    const together = alphabet.split('').map((_, value) => sum(places.map((place) => place[value])))
    expect(chiSquare(together)).toBeLessThan(160)
    expect(Math.max(...places.map(chiSquare))).toBeLessThan(160)
  })

  describe.each([
    ['unkeyed', unkeyed],
    ['keyed', keyed],
  ])('%s', (_, format) => {
    const many = Array.from({ length: 10_000 }, () => format.mint())

    it('mints keys of a name, 43 characters of body and 8 of check, all of base62', () => {
      const others = many.filter(({ plainTextKey }) => !/^agpt_[0-9A-Za-z]{51}$/.test(plainTextKey))

      expect(others).toEqual([])
    })

    it('reads back every key that it minted', () => {
      const misread = many.filter(
        ({ plainTextKey, hash }) => readHash(format, plainTextKey) !== hash,
      )

      expect(misread).toEqual([])
    })

    it('shows the name with 6 characters of the body, and the check', () => {
      const { plainTextKey, prefix, postfix } = format.mint()

      expect(prefix).toBe(plainTextKey.slice(0, 11))
      expect(postfix).toBe(plainTextKey.slice(-8))
    })

    it.each(Object.entries(alterations))('refuses %s', (_, alteration) => {
      fc.assert(
        fc.property(alteration, (alter) => {
          const { plainTextKey } = format.mint()
          const altered = alter(plainTextKey)
          fc.pre(altered !== plainTextKey)

          expect({ plainTextKey, altered, read: format.parse(asSent(altered)) }).toEqual({
            plainTextKey,
            altered,
            read: null,
          })
        }),
        { numRuns: runsOf(1_000) },
      )
    })

    it('refuses a key if any one of its characters is changed to any other', () => {
      const { plainTextKey } = format.mint()
      const accepted = plainTextKey.split('').flatMap((character, at) =>
        [...alphabet.split(''), '_', '-', ' ', '\0', '\u0661', '\uff21']
          .filter((other) => other !== character)
          .map((other) => plainTextKey.slice(0, at) + other + plainTextKey.slice(at + 1))
          .filter((altered) => format.parse(asSent(altered)) !== null),
      )

      expect(accepted).toEqual([])
    })
  })

  it('keeps for good the form in which keys are out in the world', () => {
    const signed = 'agpt_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ'

    expect(readHash(unkeyed, `${signed}6zVDasPf`)).toBe(
      '2cca069db23f4548d2c0273cea7341452a3a735b24a4f59c492d754a93f3a212',
    )
    expect(readHash(keyed, `${signed}Gyn0T1Gh`)).toBe(
      '6cc5f5f03c0fa837746e178c17ce909bceebba2dd187165a1e21bb89c4dd9583',
    )
    expect(unkeyed.secretIds).toEqual([null])
    expect(keyed.secretIds).toEqual(['164cd9c1ae5c224d'])
    expect(keyed.mint().secretId).toBe('164cd9c1ae5c224d')
  })

  it.each([
    ['without a secret', [], sha256],
    ['under a secret', [secret], hmac(secret)],
    ['under a secret of bytes', [Buffer.from(secret)], hmac(secret)],
    ['under the first of several secrets', [otherSecret, secret], hmac(otherSecret)],
  ] as const)('makes the check and the hash of one digest, %s', (_, secrets, digestOf) => {
    const { plainTextKey, hash } = createFormat({ secrets: [...secrets] }).mint()
    const digest = digestOf(plainTextKey.slice(0, 48))
    const first47Bits = BigInt(`0x${digest}`) >> BigInt(256 - 47)

    expect(hash).toBe(digest)
    expect(plainTextKey.slice(48)).toBe(toBase62(first47Bits))
  })

  it('keys the hash as Node’s own HMAC does, with the key that HKDF derives, whatever the secret', () => {
    const keyPrefix = fc.stringMatching(/^[a-z][a-z0-9_]{0,14}[a-z0-9]$/)
    const secrets = fc.uniqueArray(fc.uint8Array({ minLength: 32, maxLength: 200 }), {
      minLength: 1,
      maxLength: 3,
      comparator: (one, other) => Buffer.from(one).equals(other),
    })

    fc.assert(
      fc.property(keyPrefix, secrets, (keyPrefix, secrets) => {
        const format = createFormat({ keyPrefixes: [keyPrefix], secrets })
        // All in one format, because no hash may depend on the texts that were hashed before.
        for (const [place, secret] of [...secrets, ...secrets].entries()) {
          const { plainTextKey, hash, secretId } = createFormat({
            keyPrefixes: [keyPrefix],
            secrets: [secret],
          }).mint()
          const digest = hmac(secret)(plainTextKey.slice(0, -8))

          expect(hash).toBe(digest)
          expect(readHash(format, plainTextKey)).toBe(digest)
          expect(secretId).toBe(format.secretIds[place % secrets.length])
        }
      }),
    )
  })

  it('converts hashes of the database to digests and back, whatever their bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
        const stored = Buffer.from(bytes).toString('hex')
        const digest = fromStoredHash(stored)

        expect(digest).toHaveLength(32)
        expect(toStoredHash(digest)).toBe(stored)
      }),
    )
  })

  it('reads the name up to the last underscore', () => {
    const acme = createFormat({ keyPrefixes: ['acme_live'] })
    const { plainTextKey, prefix } = acme.mint()

    expect(acme.markers).toEqual(['acme_live_'])
    expect(prefix).toMatch(/^acme_live_[0-9A-Za-z]{6}$/)
    expect(acme.parse(asSent(plainTextKey))).not.toBeNull()
    expect(createFormat({ keyPrefixes: ['acme'] }).parse(asSent(plainTextKey))).toBeNull()
  })

  describe('with several prefixes', () => {
    const prefixes = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9_]{0,14}[a-z0-9]$/), {
      minLength: 1,
      maxLength: 6,
    })

    it('reads the keys of each as a format of that prefix alone does, and no keys of other prefixes', () => {
      const secrets = fc.constantFrom([], [secret], [otherSecret, secret])

      fc.assert(
        fc.property(prefixes, prefixes, secrets, (keyPrefixes, others, secrets) => {
          const format = createFormat({ keyPrefixes, secrets })
          for (const keyPrefix of [...keyPrefixes, ...others]) {
            const { plainTextKey, hash } = createFormat({
              keyPrefixes: [keyPrefix],
              secrets,
            }).mint()
            const isOwn = keyPrefixes.includes(keyPrefix)

            expect(readHash(format, plainTextKey)).toBe(isOwn ? hash : null)
            expect(format.hasShape(asSent(plainTextKey))).toBe(isOwn)
            const markerEnd = format.markerEndAt(plainTextKey, 0)
            const isOfAnother = markerEnd === -1 || longerNameEnd(plainTextKey, markerEnd) !== -1
            expect(isOfAnother).toBe(!isOwn)
          }
        }),
        { numRuns: runsOf(500) },
      )
    })

    it('reads keys of which one prefix is the start of another, by the last underscore', () => {
      const format = createSecretFormat({
        keyPrefixes: ['acme', 'acme_live', 'acme_live_2'],
        secrets: [secret],
        acceptUnkeyed: true,
      })

      for (const keyPrefix of ['acme', 'acme_live', 'acme_live_2']) {
        const { plainTextKey, hash, prefix, secretId } = format.mint(keyPrefix)
        expect(prefix).toBe(plainTextKey.slice(0, keyPrefix.length + 7))
        expect(readHash(format, plainTextKey)).toBe(hash)
        expect(secretId).toBe(format.secretIds[0])
      }
      for (const keyPrefix of ['acme', 'acme_live_2']) {
        const { plainTextKey, hash } = createFormat({ keyPrefixes: [keyPrefix] }).mint()
        expect(readHash(format, plainTextKey)).toBe(hash)
      }
    })

    it('takes what begins as our keys do for ours, unless it is a key with a longer name', () => {
      const { markerEndAt } = createFormat({ keyPrefixes: ['acme', 'acme_live'] })
      const body = 'k'.repeat(51)
      const namesOf = (text: string, start = 0) => {
        const markerEnd = markerEndAt(text, start)
        return [markerEnd, longerNameEnd(text, markerEnd)]
      }

      expect(namesOf(`acme_${body}`)).toEqual([5, -1])
      expect(namesOf(`acme_live_${body}`)).toEqual([10, -1])
      expect(namesOf(`Bearer acme_live_${body}`, 7)).toEqual([17, -1])
      expect(namesOf(`acme_prod_${body}`)).toEqual([5, 10])
      expect(namesOf(`acme_live_2_${body}`)).toEqual([10, 12])
      // No prefix ends in an underscore, and no other text is a key.
      const rests = ['', 'k', `${body}k`, `_${body}`, `prod_${body}k`, `p-x_${body}`, `P_${body}`]
      for (const rest of rests) expect(namesOf(`acme_${rest}`)).toEqual([5, -1])
      expect(markerEndAt(`acmelive_${body}`, 0)).toBe(-1)
      expect(markerEndAt(`ACME_${body}`, 0)).toBe(-1)
    })
  })

  it('refuses a key minted under another secret, under none, or under one if it has none itself', () => {
    const other = createFormat({ secrets: [otherSecret] })

    expect(keyed.parse(asSent(other.mint().plainTextKey))).toBeNull()
    expect(keyed.parse(asSent(unkeyed.mint().plainTextKey))).toBeNull()
    expect(unkeyed.parse(asSent(keyed.mint().plainTextKey))).toBeNull()
  })

  it('rotates secrets: the first mints, all of them verify, and each key names its own', () => {
    const rotated = createFormat({ secrets: [otherSecret, secret] })
    const old = keyed.mint()
    const young = rotated.mint()

    expect(readHash(rotated, old.plainTextKey)).toBe(old.hash)
    expect(readHash(rotated, young.plainTextKey)).toBe(young.hash)
    expect(rotated.secretIds).toEqual([young.secretId, old.secretId])
    expect(young.secretId).not.toBe(old.secretId)
    expect(keyed.parse(asSent(young.plainTextKey))).toBeNull()
    expect(createFormat({ secrets: [otherSecret] }).parse(asSent(old.plainTextKey))).toBeNull()
  })

  it('keeps no key that it has read in its buffers', () => {
    const buffers = jest.spyOn(Buffer, 'from')
    const allocated = jest.spyOn(Buffer, 'alloc')
    const format = createFormat({ secrets: [secret] })
    const made = [...buffers.mock.results, ...allocated.mock.results].map(
      ({ value }) => value as Buffer,
    )
    buffers.mockRestore()
    allocated.mockRestore()

    const { plainTextKey } = format.mint()
    format.parse(asSent(plainTextKey))

    const left = made.filter((buffer) => buffer.includes(plainTextKey.slice(-30, -10)))
    expect(made).not.toHaveLength(0)
    expect(left).toEqual([])
  })

  it('still accepts unkeyed keys with acceptUnkeyed, and mints keyed keys', () => {
    const transitional = createFormat({ secrets: [secret], acceptUnkeyed: true })
    const old = unkeyed.mint()

    expect(readHash(transitional, old.plainTextKey)).toBe(old.hash)
    expect(transitional.secretIds).toEqual([...keyed.secretIds, null])
    expect(keyed.parse(asSent(transitional.mint().plainTextKey))).not.toBeNull()
  })
})

describe('verify', () => {
  let database: Database

  beforeAll(async () => {
    database = await createDatabase()
  })

  afterAll(() => database.drop())

  it.each([
    ['unkeyed', []],
    ['keyed', [secret]],
  ])('refuses an altered key without a look at any key, %s', async (_, secrets) => {
    const apiKeys = createTestApiKeys(database, { secrets })
    const plainTextKey = await mint(apiKeys)

    await fc.assert(
      fc.asyncProperty(fc.oneof(...Object.values(alterations)), async (alter) => {
        const altered = alter(plainTextKey)
        fc.pre(altered !== plainTextKey)

        expect(await apiKeys.verify(altered)).toEqual({ valid: false, code: 'malformed' })
      }),
      { numRuns: runsOf(1_000) },
    )
    expect(await countVerifications(apiKeys)).toBe(0)
    expect(await apiKeys.health()).toMatchObject({ feed: 'idle', lagMs: null })

    await expect(apiKeys.verify(plainTextKey)).resolves.toMatchObject({ valid: true })
    expect(await countVerifications(apiKeys)).toBe(1)
    expect(await apiKeys.health()).toMatchObject({ feed: 'following' })
  })

  it('looks up a key of the right form that does not exist, and reports it as unknown', async () => {
    const apiKeys = createTestApiKeys(database)

    await expect(apiKeys.verify(unkeyed.mint().plainTextKey)).resolves.toEqual({
      valid: false,
      code: 'unknown',
    })
  })

  it('loses no key when an app begins with a secret, changes it and gives the old one up', async () => {
    const first = createTestApiKeys(database)
    const second = createTestApiKeys(database, { secrets: [secret], acceptUnkeyed: true })
    const third = createTestApiKeys(database, { secrets: [otherSecret, secret] })
    const last = createTestApiKeys(database, { secrets: [otherSecret] })
    const keys = [await mint(first), await mint(second), await mint(third)]

    async function areValid(apiKeys: TestApiKeys) {
      const verdicts = await Promise.all(keys.map((key) => apiKeys.verify(key)))
      return verdicts.map(({ valid }) => valid)
    }
    expect(await areValid(first)).toEqual([true, false, false])
    expect(await areValid(second)).toEqual([true, true, false])
    expect(await areValid(third)).toEqual([false, true, true])
    expect(await areValid(last)).toEqual([false, false, true])
  })
})

function toUpperCase(text: string) {
  return text.toUpperCase()
}

function toLowerCase(text: string) {
  return text.toLowerCase()
}

function swapCase(text: string) {
  return text.replaceAll(/./g, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase()))
}

async function mint(apiKeys: TestApiKeys) {
  const { plainTextKey } = await apiKeys.create(newKey())
  return plainTextKey
}

/** Counts the characters of the alphabet at each place of the texts. */
function countByPlace(texts: readonly string[]): number[][] {
  const counts = Array.from({ length: 43 }, () => alphabet.split('').map(() => 0))
  for (const text of texts) {
    for (const [place, count] of counts.entries()) {
      const value = alphabet.indexOf(text.charAt(place))
      count[value] = (count[value] ?? Number.NaN) + 1
    }
  }
  return counts
}

/** Returns the distance of the counts from equal counts (chi-squared). */
function chiSquare(counts: readonly number[]) {
  const expected = sum(counts) / counts.length
  return sum(counts.map((count) => (count - expected) ** 2 / expected))
}

function sum(numbers: readonly (number | undefined)[]): number {
  return numbers.reduce<number>((total, number) => total + (number ?? Number.NaN), 0)
}

function sha256(text: string) {
  return createHash('sha256').update(text).digest('hex')
}

function hmac(secret: string | Uint8Array) {
  const key = Buffer.from(hkdfSync('sha256', secret, '', 'express-api-keys v1 hash', 32))
  return (text: string) => createHmac('sha256', key).update(text).digest('hex')
}

function toBase62(number: bigint): string {
  const digits = Array.from({ length: 8 }, (_, place) => (number / 62n ** BigInt(7 - place)) % 62n)
  return digits.map((digit) => alphabet.charAt(Number(digit))).join('')
}
