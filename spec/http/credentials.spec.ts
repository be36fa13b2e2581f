import { IncomingMessage, type RequestListener } from 'node:http'
import { Socket } from 'node:net'

import * as fc from 'fast-check'

import { createCredentialReader, type Credential } from '../../lib/http/credentials'
import { createSecretFormat } from '../../lib/keys/secret'
import { sendRaw } from '../support/raw-http'

const format = createSecretFormat({ keyPrefixes: ['agpt'], secrets: [], acceptUnkeyed: false })
const options = { ...format, header: undefined }
const key = `agpt_${'k'.repeat(51)}`
const otherKey = `agpt_${'q'.repeat(51)}`
/** A token of another issuer that contains the prefix of our keys. */
const jwt = `eyJhbGciOiJIUzI1NiJ9.agpt_${'k'.repeat(51)}.x-agpt_y/agpt_z`

const none: Credential = { kind: 'none' }
const foreign: Credential = { kind: 'foreign' }
const found = { kind: 'key', plainTextKey: key }
const malformed = unreadable('malformed_credential', { isOurs: false })
const malformedKey = unreadable('malformed_credential', { isOurs: true })
const severalKeys = unreadable('multiple_credentials', { isOurs: true })

function unreadable(code: string, { isOurs }: { isOurs: boolean }) {
  return {
    kind: 'unreadable',
    isOurs,
    error: expect.objectContaining({ name: 'ApiKeysError', code }) as unknown,
  }
}

/** Sends header lines to a server that reads them, and returns the credential and the headers after it. */
async function read(lines: readonly string[], header?: string) {
  const credentials = createCredentialReader({ ...format, header })
  const listener: RequestListener = (req, res) => {
    const { headers, rawHeaders } = req
    // Reads from a copy, before that, if the key is in plain text.
    const copy = new IncomingMessage(new Socket())
    Object.assign(copy, { headers: { ...headers }, rawHeaders: [...rawHeaders] })
    const plain = {
      credential: shown(credentials.readPlain(copy, copy.rawHeaders)),
      ...headersOf(copy),
    }
    const unread = headersOf({ headers: { ...headers }, rawHeaders: [...rawHeaders] })

    const credential = shown(credentials.read(req, rawHeaders))
    res.end(JSON.stringify({ credential, ...headersOf(req), plain, unread }))
  }

  const { body } = await sendRaw(listener, ['GET / HTTP/1.1', ...lines])
  const { plain, unread, ...found } = JSON.parse(body)
  // The short way of reading finds the same as the thorough way, and leaves all other headers unchanged.
  expect(plain).toEqual(plain.credential ? found : { credential: null, ...unread })
  return found
}

function shown(credential: Credential | null) {
  if (credential?.kind !== 'key') return credential
  return { kind: 'key', plainTextKey: credential.text.slice(credential.start) }
}

function headersOf({ headers, rawHeaders }: Pick<IncomingMessage, 'headers' | 'rawHeaders'>) {
  return { headers, rawHeaders }
}

describe('createCredentialReader', () => {
  it.each<[string, string[], unknown]>([
    ['nothing', [], none],
    ['an empty header', ['Authorization:'], none],
    ['Basic', ['Authorization: Basic YWxpY2U6c2VjcmV0'], none],
    ['a scheme that begins as Bearer does', ['Authorization: BearerX abc'], none],
    ['a JWT', [`Authorization: Bearer ${jwt}`], foreign],
    ['a token that ends in padding', ['Authorization: Bearer abc=='], foreign],
    [
      'two JWTs, of which Node shows the first',
      [`Authorization: Bearer ${jwt}`, 'Authorization: Bearer x'],
      foreign,
    ],
    ['what our keys begin with, in upper case', ['Authorization: Bearer AGPT_kkk'], foreign],
    ['a key', [`Authorization: Bearer ${key}`], found],
    ['a key, in a header of lower case', [`authorization: bearer ${key}`], found],
    ['a key behind several spaces', [`Authorization: BEARER     ${key}   `], found],
    ['the start of a key', ['Authorization: Bearer agpt_'], { kind: 'key', plainTextKey: 'agpt_' }],
    [
      'a key with padding',
      [`Authorization: Bearer ${key}=`],
      { kind: 'key', plainTextKey: `${key}=` },
    ],
    ['Bearer alone', ['Authorization: Bearer'], malformed],
    ['padding alone', ['Authorization: Bearer ==='], malformed],
    ['padding in the middle', ['Authorization: Bearer ab=c'], malformed],
    ['two tokens', ['Authorization: Bearer a b'], malformed],
    ['two schemes', ['Authorization: Bearer Bearer a'], malformed],
    ['a byte that no token has', ['Authorization: Bearer \xe9'], malformed],
    ['a key without scheme', [`Authorization: ${key}`], malformedKey],
    ['a key of another scheme', [`Authorization: Basic ${key}`], malformedKey],
    ['a key behind a tab', [`Authorization: Bearer\t${key}`], malformedKey],
    ['a key and more', [`Authorization: Bearer ${key} x`], malformedKey],
    ['a key after more', [`Authorization: Bearer x,${key}`], malformedKey],
    ['a key in quotes', [`Authorization: Bearer "${key}"`], malformedKey],
    ['a key in angle brackets', [`Authorization: Bearer <${key}>`], malformedKey],
    ['a key in round brackets', [`Authorization: Bearer (${key})`], malformedKey],
    ['a key in the query of a header', [`Authorization: Token?key=${key}`], malformedKey],
    ['a key and a byte that no token has', [`Authorization: Bearer ${key}\xe9`], malformedKey],
    ['a key twice', [`Authorization: Bearer ${key}`, `Authorization: Bearer ${key}`], severalKeys],
    [
      'two keys',
      [`Authorization: Bearer ${key}`, `Authorization: Bearer ${otherKey}`],
      severalKeys,
    ],
    [
      'a key behind a JWT',
      [`Authorization: Bearer ${jwt}`, `Authorization: Bearer ${key}`],
      severalKeys,
    ],
    [
      'a key before Basic',
      [`Authorization: Bearer ${key}`, 'Authorization: Basic eA=='],
      severalKeys,
    ],
    ['a key in a header that the app has not named', [`X-API-Key: ${key}`], none],
    ['a key in a cookie', [`Cookie: ${key}=${key}`], none],
  ])('finds in Authorization: %s', async (_, lines, credential) => {
    expect((await read(lines)).credential).toEqual(credential)
  })

  it.each<[string, string[], unknown]>([
    ['nothing', [], none],
    ['an empty header', ['X-API-Key:'], none],
    ['a key', [`X-API-Key: ${key}`], found],
    ['a key, in a header of another case', [`x-aPI-kEY:    ${key}  `], found],
    ['a key of somebody else', ['X-API-Key: sk_live_123'], foreign],
    ['a key in Authorization', [`Authorization: Bearer ${key}`], found],
    ['a key beside Basic', ['Authorization: Basic eA==', `X-API-Key: ${key}`], found],
    ['a key beside a JWT', [`Authorization: Bearer ${jwt}`, `X-API-Key: ${key}`], found],
    [
      'a key in Authorization beside one of somebody else',
      [`Authorization: Bearer ${key}`, 'X-API-Key: sk_live_123'],
      found,
    ],
    ['a key and the scheme', [`X-API-Key: Bearer ${key}`], malformedKey],
    ['a malformed Authorization', ['Authorization: Bearer a b'], malformed],
    [
      'a malformed Authorization beside a key',
      ['Authorization: Bearer a b', `X-API-Key: ${key}`],
      found,
    ],
    ['a key twice', [`X-API-Key: ${key}`, `X-API-Key: ${key}`], severalKeys],
    ['two keys', [`X-API-Key: ${key}`, `X-API-Key: ${otherKey}`], severalKeys],
    [
      'a key after one of somebody else',
      ['X-API-Key: sk_live_123', `X-API-Key: ${key}`],
      severalKeys,
    ],
    ['a key in both headers', [`Authorization: Bearer ${key}`, `X-API-Key: ${key}`], severalKeys],
    ['a key beside a malformed one', [`Authorization: ${key}`, `X-API-Key: ${key}`], severalKeys],
    [
      'a key beside two other credentials',
      ['Authorization: Basic eA==', 'Authorization: Basic eA==', `X-API-Key: ${key}`],
      severalKeys,
    ],
  ])('finds in a header that the app named: %s', async (_, lines, credential) => {
    expect((await read(lines, 'x-api-key')).credential).toEqual(credential)
  })

  it('finds a key that the app put into the headers itself', () => {
    const req = new IncomingMessage(new Socket())
    req.headers = { authorization: `Bearer ${key}` }

    const credential = createCredentialReader(options).read(req, req.rawHeaders)
    expect(shown(credential)).toEqual(found)
    expect(req.headers).toEqual({ authorization: 'Bearer agpt_kkkkkk...' })
  })

  it('still finds a key in a request that it has masked', () => {
    const credentials = createCredentialReader(options)
    const req = new IncomingMessage(new Socket())
    req.headers = { authorization: `Bearer ${key}` }
    credentials.read(req, req.rawHeaders)

    expect(credentials.read(req, req.rawHeaders)).toMatchObject(malformedKey)
    expect(credentials.readPlain(req, req.rawHeaders)).toBeNull()
    expect(req.headers).toEqual({ authorization: 'Bearer agpt_kkkkkk...' })
  })
})

describe('masking', () => {
  it.each<[string, string]>([
    [`Authorization: Bearer ${key}`, 'Authorization: Bearer agpt_kkkkkk...'],
    [`AUTHORIZATION: bearer ${key}`, 'AUTHORIZATION: bearer agpt_kkkkkk...'],
    [`Authorization: ${key}`, 'Authorization: agpt_kkkkkk...'],
    [`Authorization: Basic ${key}`, 'Authorization: Basic agpt_kkkkkk...'],
    [
      `Authorization: Bearer ${key} ${otherKey}`,
      'Authorization: Bearer agpt_kkkkkk... agpt_qqqqqq...',
    ],
    [
      `Authorization: Bearer ${key},Bearer ${otherKey}`,
      'Authorization: Bearer agpt_kkkkkk...,Bearer agpt_qqqqqq...',
    ],
    [
      `Authorization: Token token="${key}", x="y"`,
      'Authorization: Token token="agpt_kkkkkk...", x="y"',
    ],
    [`Authorization: Bearer '${key}'`, "Authorization: Bearer 'agpt_kkkkkk...'"],
    [`Authorization: Bearer <${key}>`, 'Authorization: Bearer <agpt_kkkkkk...'],
    [`Authorization: Bearer ${key}\xe9${key}`, 'Authorization: Bearer agpt_kkkkkk...'],
    [`X-API-Key: ${key}`, 'X-API-Key: agpt_kkkkkk...'],
    [`X-API-Key: Bearer ${key}`, 'X-API-Key: Bearer agpt_kkkkkk...'],
  ])('makes of %s: %s', async (sent, left) => {
    const { headers, rawHeaders } = await read([sent], 'x-api-key')
    const [name = '', value] = split(left)

    expect(headers[name.toLowerCase()]).toBe(value)
    expect(rawHeaders.slice(0, 2)).toEqual([name, value])
  })

  it.each([
    `Authorization: Bearer ${jwt}`,
    'Authorization: Basic YWdwdF9ra2traw==',
    'Authorization: Digest username="alice", uri="/graphs/agpt_1", response="0123"',
    'X-API-Key: sk_live_agpt_123',
    `X-Other: ${key}`,
    `Cookie: key=${key}`,
  ])('leaves as it is: %s', async (sent) => {
    const { headers, rawHeaders } = await read([sent], 'x-api-key')
    const [name = '', value] = split(sent)

    expect(headers[name.toLowerCase()]).toBe(value)
    expect(rawHeaders.slice(0, 2)).toEqual([name, value])
  })

  it('masks keys with each of several prefixes, and keys with a longer name, down to what lists show', async () => {
    const several = createSecretFormat({
      keyPrefixes: ['acme', 'acme_live'],
      secrets: [],
      acceptUnkeyed: false,
    })
    const body = 'k'.repeat(51)
    const credentials = createCredentialReader({ ...several, header: 'x-api-key' })
    const listener: RequestListener = (req, res) => {
      const { kind } =
        credentials.readPlain(req, req.rawHeaders) ?? credentials.read(req, req.rawHeaders)
      res.end(JSON.stringify({ kind, sent: req.rawHeaders.slice(0, 2) }))
    }
    const masked: [string, string, string][] = []
    for (const line of [
      `Authorization: Bearer acme_${body}`,
      `Authorization: Bearer acme_live_${body}`,
      `Authorization: bearer acme_live_${body}`,
      `X-API-Key: acme_live_${body}`,
      `Authorization: Bearer <acme_live_${body}>`,
      `Authorization: Bearer acme_live_${body}k`,
      `Authorization: Bearer acme_prod_${body}k`,
      `Authorization: Bearer acme_prod_${body}`,
      `Authorization: bearer acme_prod_${body}`,
      `X-API-Key: acme_prod_${body}`,
      `Authorization: Token token="acme_prod_${body}", x`,
    ]) {
      const { kind, sent } = JSON.parse((await sendRaw(listener, ['GET / HTTP/1.1', line])).body)
      masked.push([line, kind, sent.join(': ')])
    }

    expect(masked).toEqual([
      [expect.anything(), 'key', 'Authorization: Bearer acme_kkkkkk...'],
      [expect.anything(), 'key', 'Authorization: Bearer acme_live_kkkkkk...'],
      [expect.anything(), 'key', 'Authorization: bearer acme_live_kkkkkk...'],
      [expect.anything(), 'key', 'X-API-Key: acme_live_kkkkkk...'],
      [expect.anything(), 'unreadable', 'Authorization: Bearer <acme_live_kkkkkk...'],
      [expect.anything(), 'key', 'Authorization: Bearer acme_live_kkkkkk...'],
      [expect.anything(), 'key', 'Authorization: Bearer acme_prod_k...'],
      [expect.anything(), 'foreign', 'Authorization: Bearer acme_prod_kkkkkk...'],
      [expect.anything(), 'foreign', 'Authorization: bearer acme_prod_kkkkkk...'],
      [expect.anything(), 'foreign', 'X-API-Key: acme_prod_kkkkkk...'],
      [expect.anything(), 'unreadable', 'Authorization: Token token="acme_prod_kkkkkk...", x'],
    ])
  })

  it('reaches every line of a header that comes more than once', async () => {
    const authorizations = await read([
      `Authorization: Bearer ${jwt}`,
      `Authorization: Bearer ${key}`,
      `Authorization: Basic ${otherKey}`,
    ])
    const others = await read(
      [`X-API-Key: ${key}`, 'X-API-Key: x', `X-API-Key: ${key}`],
      'x-api-key',
    )

    expect(authorizations.headers.authorization).toBe(`Bearer ${jwt}`)
    expect(authorizations.rawHeaders.slice(0, 6)).toEqual([
      'Authorization',
      `Bearer ${jwt}`,
      'Authorization',
      'Bearer agpt_kkkkkk...',
      'Authorization',
      'Basic agpt_qqqqqq...',
    ])
    expect(others.headers['x-api-key']).toBe('agpt_kkkkkk..., x, agpt_kkkkkk...')
    expect(others.rawHeaders.slice(0, 6)).toEqual([
      'X-API-Key',
      'agpt_kkkkkk...',
      'X-API-Key',
      'x',
      'X-API-Key',
      'agpt_kkkkkk...',
    ])
  })

  it('leaves no key in a value, whatever stands around it', () => {
    const credentials = createCredentialReader(options)
    const latin1 = fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code))
    const separator = latin1.filter((character) => !/[\w\-.~+/]/.test(character))
    const around = fc.tuple(fc.string({ unit: latin1 }), separator, fc.string({ unit: latin1 }))

    fc.assert(
      fc.property(around, ([before, separator, after]) => {
        const value = `${before}${separator}${key}${after}`
        const req = new IncomingMessage(new Socket())
        req.headers = { authorization: value }
        req.rawHeaders = ['Authorization', value]

        const credential =
          credentials.readPlain(req, req.rawHeaders) ?? credentials.read(req, req.rawHeaders)

        expect(concernsUs(credential)).toBe(true)
        expect(JSON.stringify([req.headers, req.rawHeaders])).not.toContain(key)
      }),
    )
  })
})

function concernsUs(credential: Credential) {
  return credential.kind === 'key' || (credential.kind === 'unreadable' && credential.isOurs)
}

function split(line: string) {
  const colon = line.indexOf(': ')
  return [line.slice(0, colon), line.slice(colon + 2)]
}
