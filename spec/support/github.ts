import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** The sample of GitHub's documentation of its secret scanning partner program. */
export const sample = {
  body: '[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]',
  keyIdentifier: 'bcb53661c06b4728e59d897fb6165d5c9cda0fd9cdf9d09ead458168deb7518c',
  signature:
    'MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg==',
  publicKey: `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYAGMWO8XgCamYKMJS6jc/qgvSlAd
AjPuDPRcXU22YxgBrz+zoN19MzuRyW87qEt9/AmtoNP5GrobzUvQSyJFVw==
-----END PUBLIC KEY-----
`,
}

/** A server that has public keys, as GitHub has. */
export interface Github {
  /** Where the public keys are. */
  publicKeysUrl: string
  /** The public keys, by their identifiers. */
  keys: Map<string, string>
  /** The answers that were sent so far: their statuses. */
  answers: number[]
  /** The header fields of the last request. */
  headers: Record<string, unknown>
  /** Answers with this status and this body, as long as there are any. */
  failure: { status: number; body: string } | undefined
  /** Adds a public key, and returns the function that signs with its private key. */
  addKey(identifier: string): (body: string | Buffer) => Record<string, string>
}

/** Runs such a server for the specs of a file. */
export function useGithub(): Github {
  const server = createServer((req, res) => {
    github.headers = req.headers
    const body = JSON.stringify({
      public_keys: [...github.keys].map(([identifier, key]) => ({
        key_identifier: identifier,
        key,
        is_current: true,
      })),
    })
    const etag = `"${[...github.keys.keys()].join('-')}"`
    const isKnown = req.headers['if-none-match'] === etag
    const { status, body: text } = github.failure ?? { status: isKnown ? 304 : 200, body }
    github.answers.push(status)
    res.writeHead(status, { 'Content-Type': 'application/json', ETag: etag })
    res.end(status === 304 ? undefined : text)
  })
  const github: Github = {
    publicKeysUrl: '',
    keys: new Map([[sample.keyIdentifier, sample.publicKey]]),
    answers: [],
    headers: {},
    failure: undefined,
    addKey(identifier) {
      const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      github.keys.set(identifier, publicKey.export({ type: 'spki', format: 'pem' }).toString())
      return (body) => signed(identifier, body, privateKey)
    },
  }
  beforeAll(async () => {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    github.publicKeysUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`
  })
  afterAll(() => {
    server.close()
    server.closeAllConnections()
  })
  return github
}

/** Returns the header fields with which GitHub sends a body. */
function signed(identifier: string, body: string | Buffer, key: KeyObject) {
  return {
    'Content-Type': 'application/json',
    'Github-Public-Key-Identifier': identifier,
    'Github-Public-Key-Signature': sign('sha256', Buffer.from(body), key).toString('base64'),
  }
}
