import { generateKeyPairSync, sign } from 'node:crypto'

import { createSignatureCheck, type Signature } from '../../lib/leaks/signatures'
import { sample, useGithub } from '../support/github'

const github = useGithub()
const minuteMs = 60_000

beforeEach(() => {
  github.keys = new Map([[sample.keyIdentifier, sample.publicKey]])
  github.answers = []
  github.failure = undefined
})

/** Makes a check with a clock that the spec sets, and the check of a report of another key. */
function createCheck(options: { token?: string } = {}) {
  const clock = { now: 0 }
  const { publicKeysUrl } = github
  const { token } = options
  const readSignature = createSignatureCheck({ publicKeysUrl, token, now: () => clock.now })
  const check = async (bytes: Buffer, fields: Signature) => (await readSignature(fields))(bytes)
  const body = Buffer.from(sample.body)
  /** Resolves to null if the signature is good, else to the code of the refusal. */
  const codeOf = (changes: Partial<typeof sample> = {}, bytes = body) =>
    check(bytes, { ...sample, ...changes }).then(
      () => null,
      (error: unknown) => (error as { code?: string }).code,
    )
  return { clock, codeOf, check }
}

describe('a signature of GitHub', () => {
  it('is good for the sample of its documentation', async () => {
    expect(await createCheck().codeOf()).toBeNull()
  })

  it('is bad if any byte of the body is another', async () => {
    const { codeOf } = createCheck()
    for (let at = 0; at < sample.body.length; at++) {
      const bytes = Buffer.from(sample.body)
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)

      expect(await codeOf({}, bytes)).toBe('invalid_signature')
    }
    expect(await codeOf({}, Buffer.from(`${sample.body} `))).toBe('invalid_signature')
    expect(await codeOf({}, Buffer.alloc(0))).toBe('invalid_signature')
  })

  it('is bad under another key', async () => {
    github.addKey('other')

    expect(await createCheck().codeOf({ keyIdentifier: 'other' })).toBe('invalid_signature')
  })

  it('is bad under a key that GitHub does not have', async () => {
    const { codeOf } = createCheck()

    expect(await codeOf({ keyIdentifier: 'unknown' })).toBe('invalid_signature')
    expect(await codeOf({ keyIdentifier: '__proto__' })).toBe('invalid_signature')
    expect(await codeOf({ keyIdentifier: '' })).toBe('invalid_signature')
  })

  it.each([
    ['no text', ''],
    ['no base64', '<script>'],
    ['base64 of the web', sample.signature.replaceAll('/', '_')],
    ['no DER', Buffer.alloc(64, 7).toString('base64')],
    ['cut off', sample.signature.slice(0, 40)],
    [
      'longer',
      Buffer.concat([Buffer.from(sample.signature, 'base64'), Buffer.alloc(1)]).toString('base64'),
    ],
    ['twice', `${sample.signature}, ${sample.signature}`],
    ['huge', 'A'.repeat(100_000)],
    ['zeros', Buffer.from('3006020100020100', 'hex').toString('base64')],
  ])('is bad if it is %s', async (_, signature) => {
    expect(await createCheck().codeOf({ signature })).toBe('invalid_signature')
  })

  it('is bad in the other form of ECDSA', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    github.keys.set('mine', publicKey.export({ type: 'spki', format: 'pem' }).toString())
    const { codeOf } = createCheck()
    const signWith = (dsaEncoding: 'der' | 'ieee-p1363') =>
      sign('sha256', Buffer.from(sample.body), { key: privateKey, dsaEncoding }).toString('base64')
    const under = { keyIdentifier: 'mine' }

    expect(await codeOf({ ...under, signature: signWith('der') })).toBeNull()
    expect(await codeOf({ ...under, signature: signWith('ieee-p1363') })).toBe('invalid_signature')
  })

  it.each([
    ['no identifier', { keyIdentifier: undefined, signature: sample.signature }],
    ['no signature', { keyIdentifier: sample.keyIdentifier, signature: undefined }],
  ])('is asked for: %s', async (_, given) => {
    const { check } = createCheck()

    await expect(check(Buffer.from(sample.body), given)).rejects.toMatchObject({
      code: 'invalid_signature',
    })
    expect(github.answers).toEqual([])
  })
})

describe('the public keys of GitHub', () => {
  it('are read once for all reports at the same time', async () => {
    const { codeOf } = createCheck()

    const codes = await Promise.all(Array.from({ length: 20 }, () => codeOf()))

    expect(new Set(codes)).toEqual(new Set([null]))
    expect(github.answers).toEqual([200])
  })

  it('are kept for 30 minutes, and asked for by their ETag then', async () => {
    const { codeOf, clock } = createCheck()
    await codeOf()
    clock.now = 30 * minuteMs
    await codeOf()
    expect(github.answers).toEqual([200])

    clock.now += 1
    expect(await codeOf()).toBeNull()
    expect(github.answers).toEqual([200, 304])

    clock.now += 30 * minuteMs
    await codeOf()
    expect(github.answers).toEqual([200, 304])
  })

  it('are read again for an unknown identifier, once a minute', async () => {
    const { codeOf, clock } = createCheck()
    await codeOf()
    const signNew = github.addKey('new')
    const fields = signNew(sample.body)
    const report = {
      keyIdentifier: 'new',
      signature: fields['Github-Public-Key-Signature'] ?? '',
    }

    clock.now = minuteMs - 1
    expect(await codeOf(report)).toBe('invalid_signature')
    expect(github.answers).toEqual([200])
    clock.now = minuteMs
    expect(await codeOf(report)).toBeNull()
    for (const keyIdentifier of ['a', 'b', 'c']) await codeOf({ keyIdentifier })
    expect(github.answers).toEqual([200, 200])
    clock.now += minuteMs
    for (const keyIdentifier of ['a', 'b', 'c']) await codeOf({ keyIdentifier })
    expect(github.answers).toEqual([200, 200, 304])
  })

  it.each([
    ['fails', { status: 500, body: '' }],
    ['limits requests', { status: 403, body: '{"message":"rate limit"}' }],
    ['has no list', { status: 200, body: '{}' }],
    ['has an empty list', { status: 200, body: '{"public_keys":[]}' }],
    ['has no JSON', { status: 200, body: '<html>' }],
    ['leads elsewhere', { status: 302, body: '' }],
  ])('go on if GitHub %s', async (_, failure) => {
    const { codeOf, clock } = createCheck()
    await codeOf()

    github.failure = failure
    clock.now = 24 * 60 * minuteMs
    expect(await codeOf()).toBeNull()
    expect(await codeOf({ keyIdentifier: 'unknown' })).toBe('invalid_signature')
    // It is not asked for each report.
    expect(github.answers).toHaveLength(2)
  })

  it('are missing if GitHub fails from the start, until it answers', async () => {
    const { codeOf, clock } = createCheck()
    github.failure = { status: 500, body: '' }

    expect(await codeOf()).toBe('report_unverifiable')
    expect(await codeOf()).toBe('report_unverifiable')
    expect(github.answers).toEqual([500])
    github.failure = undefined
    clock.now = 1_000
    expect(await codeOf()).toBeNull()
  })

  it('are left out if they are malformed or of another kind', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' })
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
    const pem = (key: typeof rsa) => key.export({ type: 'spki', format: 'pem' })
    const list = [
      null,
      'text',
      { key_identifier: 7, key: sample.publicKey },
      { key_identifier: 'malformed', key: 'x' },
      { key_identifier: 'P-384', key: pem(publicKey) },
      { key_identifier: 'RSA', key: pem(rsa) },
      { key_identifier: sample.keyIdentifier, key: sample.publicKey },
    ]
    github.failure = { status: 200, body: JSON.stringify({ public_keys: list }) }
    const { codeOf } = createCheck()

    expect(await codeOf()).toBeNull()
    const signature = sign('sha256', Buffer.from(sample.body), privateKey).toString('base64')
    for (const keyIdentifier of ['malformed', 'P-384', 'RSA']) {
      expect(await codeOf({ keyIdentifier, signature })).toBe('invalid_signature')
    }
  })

  it('are asked for with the token of the app, if it has one', async () => {
    await createCheck().codeOf()
    expect(github.headers).not.toHaveProperty('authorization')

    await createCheck({ token: 'token-of-the-app' }).codeOf()
    expect(github.headers.authorization).toBe('Bearer token-of-the-app')
  })
})
