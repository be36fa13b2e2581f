import { createTestApiKeys, createTestApp, type TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { sendRaw } from '../support/raw-http'

let apiKeys: TestApiKeys

beforeAll(() => {
  apiKeys = createTestApiKeys(databaseAway, { trustedOrigins: ['https://console.example.com'] })
})

const refusal = {
  title: 'Forbidden',
  status: 403,
  detail: 'A request from another site may not change anything here.',
  code: 'cross_site_request',
}

/** Creates a key with an empty body, which breaks the rules: 422 once the request is let through. */
async function post(lines: readonly string[], trustProxy: unknown = false) {
  const app = createTestApp(apiKeys).set('trust proxy', trustProxy)
  const answer = await sendRaw(app, [
    'POST /api-keys HTTP/1.1',
    'X-User: alice',
    'Content-Length: 0',
    ...lines,
  ])
  return [answer.status, JSON.parse(answer.body).code]
}

const letThrough = [422, 'invalid_input']
const refused = [403, 'cross_site_request']

describe('a request that changes something', () => {
  it.each<[string, string[]]>([
    ['a program', []],
    ['a page of the app', ['Sec-Fetch-Site: same-origin']],
    [
      'a page of the app, whatever the host is called here',
      ['Sec-Fetch-Site: same-origin', 'Origin: https://app.example', 'Host: 10.0.0.7:8080'],
    ],
    ['the address bar', ['Sec-Fetch-Site: none']],
    ['a trusted origin', ['Origin: https://console.example.com']],
    [
      'a trusted origin of another site',
      ['Origin: https://console.example.com', 'Sec-Fetch-Site: cross-site'],
    ],
    ['the app’s own host', ['Origin: http://app.example', 'Host: app.example']],
    ['the app’s own host and port', ['Origin: http://localhost:3000', 'Host: localhost:3000']],
    ['the app’s own host, in another case', ['Origin: http://app.example', 'Host: App.Example']],
    [
      'the app’s own host, which spells the default port',
      ['Origin: http://app.example', 'Host: app.example:80'],
    ],
    [
      'the app’s own host, whose TLS ends before it',
      ['Origin: https://app.example', 'Host: app.example'],
    ],
    [
      'the app’s own host, which spells the port of TLS',
      ['Origin: https://app.example', 'Host: app.example:443'],
    ],
    ['the app’s own address', ['Origin: http://[::1]:3000', 'Host: [::1]:3000']],
  ])('is let through from %s', async (_, lines) => {
    expect(await post(lines)).toEqual(letThrough)
  })

  it.each<[string, string[]]>([
    ['another site', ['Sec-Fetch-Site: cross-site']],
    [
      'another site, says the browser',
      ['Sec-Fetch-Site: cross-site', 'Origin: http://app.example', 'Host: app.example'],
    ],
    ['another host of the site', ['Sec-Fetch-Site: same-site']],
    ['somewhere that no standard knows', ['Sec-Fetch-Site: same']],
    ['two places at once', ['Sec-Fetch-Site: same-origin', 'Sec-Fetch-Site: cross-site']],
    ['another host', ['Origin: http://evil.example', 'Host: app.example']],
    ['another port', ['Origin: http://localhost:3000', 'Host: localhost:4000']],
    ['another port than the default one', ['Origin: http://app.example:8080', 'Host: app.example']],
    [
      'a host that begins as the app’s',
      ['Origin: http://app.example.evil.example', 'Host: app.example'],
    ],
    ['a host that ends as the app’s', ['Origin: http://evilapp.example', 'Host: app.example']],
    ['a subdomain', ['Origin: http://blog.app.example', 'Host: app.example']],
    ['a sandboxed frame', ['Origin: null', 'Host: app.example']],
    ['a host called null', ['Origin: null', 'Host: null']],
    ['a file', ['Origin: file://', 'Host: localhost']],
    ['an extension', ['Origin: chrome-extension://abcdef', 'Host: app.example']],
    ['nowhere', ['Origin:', 'Host: app.example']],
    ['two origins', ['Origin: http://app.example http://evil.example', 'Host: app.example']],
    ['a trusted host without TLS', ['Origin: http://console.example.com', 'Host: app.example']],
    [
      'another port of a trusted host',
      ['Origin: https://console.example.com:8443', 'Host: app.example'],
    ],
    [
      'a host that begins as a trusted one',
      ['Origin: https://console.example.com.evil.example', 'Host: app.example'],
    ],
    [
      'a host that nobody vouches for',
      ['Origin: https://app.example', 'Host: 10.0.0.7:8080', 'X-Forwarded-Host: app.example'],
    ],
  ])('is refused from %s', async (_, lines) => {
    expect(await post(lines)).toEqual(refused)
  })

  it('is refused without a host to compare', async () => {
    const answer = await sendRaw(createTestApp(apiKeys), [
      'POST /api-keys HTTP/1.0',
      'X-User: alice',
      'Origin: http://localhost',
      'Host:',
    ])

    expect(answer.status).toBe(403)
    expect(answer.body).toBe(JSON.stringify(refusal))
  })

  it.each<[string, unknown, string[], unknown]>([
    ['trusted', true, ['X-Forwarded-Host: app.example'], letThrough],
    ['trusted by address', 'loopback', ['X-Forwarded-Host: app.example'], letThrough],
    [
      'trusted, with others behind it',
      1,
      ['X-Forwarded-Host: app.example, inner.example'],
      letThrough,
    ],
    ['trusted, for another host', true, ['X-Forwarded-Host: other.example'], refused],
    ['trusted, which says nothing', true, [], refused],
    ['not trusted', false, ['X-Forwarded-Host: app.example'], refused],
    ['of another address', '10.0.0.0/8', ['X-Forwarded-Host: app.example'], refused],
  ])('is judged by the host that a proxy names: %s', async (_, trustProxy, lines, verdict) => {
    const own = ['Origin: https://app.example', 'Host: 10.0.0.7:8080', ...lines]

    expect(await post(own, trustProxy)).toEqual(verdict)
  })

  it.each([
    ['POST', '/api-keys'],
    ['PATCH', '/api-keys/00000000-0000-4000-8000-000000000000'],
    ['PUT', '/api-keys/00000000-0000-4000-8000-000000000000/permissions'],
    ['POST', '/api-keys/00000000-0000-4000-8000-000000000000/suspend'],
    ['POST', '/api-keys/00000000-0000-4000-8000-000000000000/reactivate'],
    ['DELETE', '/api-keys/00000000-0000-4000-8000-000000000000'],
    ['POST', '/admin/api-keys'],
    ['PATCH', '/admin/api-keys/00000000-0000-4000-8000-000000000000'],
    ['PUT', '/admin/api-keys/00000000-0000-4000-8000-000000000000/permissions'],
    ['POST', '/admin/api-keys/00000000-0000-4000-8000-000000000000/suspend'],
    ['POST', '/admin/api-keys/00000000-0000-4000-8000-000000000000/reactivate'],
    ['POST', '/admin/api-keys/revoke-all'],
    ['DELETE', '/admin/api-keys/00000000-0000-4000-8000-000000000000'],
  ])('is refused on every route: %s %s', async (method, path) => {
    for (const line of ['Origin: https://evil.example', 'Sec-Fetch-Site: cross-site']) {
      const answer = await sendRaw(createTestApp(apiKeys), [
        `${method} ${path} HTTP/1.1`,
        'X-User: admin',
        'Content-Length: 0',
        line,
      ])

      expect(answer.status).toBe(403)
      expect(answer.body).toBe(JSON.stringify(refusal))
    }
  })
})

type TrustedOrigins = NonNullable<Parameters<typeof createTestApiKeys>[1]>['trustedOrigins']

describe('trustedOrigins', () => {
  const ownHost = 'Host: app.example'

  /** True if a page of an origin may change keys. */
  async function isTrusted(trustedOrigins: TrustedOrigins, origin: string) {
    const app = createTestApp(createTestApiKeys(databaseAway, { trustedOrigins }))
    const answer = await sendRaw(app, [
      'POST /api-keys HTTP/1.1',
      'X-User: alice',
      'Content-Length: 0',
      'Sec-Fetch-Site: cross-site',
      `Origin: ${origin}`,
      ownHost,
    ])
    if (answer.status === 500) return JSON.parse(answer.body).app
    return answer.status === 422
  }

  it.each([
    'capacitor://localhost',
    'tauri://localhost',
    'chrome-extension://abcdefghijklmnop',
    'moz-extension://0a1b2c3d-0000-4000-8000-000000000000',
    'app://obsidian.md',
    'http://localhost:3000',
  ])('are compared as text, whatever the scheme: %s', async (origin) => {
    expect(await isTrusted([origin], origin)).toBe(true)
    expect(await isTrusted([origin], `${origin}.evil.example`)).toBe(false)
    expect(await isTrusted([origin], origin.replace('//', '//x'))).toBe(false)
  })

  it('may be a function, which decides by origin and request', async () => {
    const asked: unknown[] = []
    const decide = (answer: unknown) =>
      isTrusted((origin, req) => {
        asked.push([origin, req.get('Host')])
        return answer as boolean
      }, 'https://tenant-7.example.com')

    expect(await decide(true)).toBe(true)
    expect(await decide(Promise.resolve(true))).toBe(true)
    for (const answer of [false, undefined, 'true', 1, Promise.resolve(false)]) {
      expect(await decide(answer)).toBe(false)
    }
    expect(asked).toHaveLength(7)
    expect(asked[0]).toEqual(['https://tenant-7.example.com', 'app.example'])
  })

  it('are never asked about pages without an origin of their own', async () => {
    expect(await isTrusted(() => true, 'null')).toBe(false)
  })

  it('are the app’s own to fail', async () => {
    expect(
      await isTrusted(
        () => Promise.reject(new Error('no tenants today')),
        'https://tenant-7.example.com',
      ),
    ).toBe('no tenants today')
  })
})

describe('a request that changes nothing', () => {
  it.each([
    'GET /api-keys',
    'HEAD /api-keys',
    'GET /admin/api-keys',
    'GET /admin/api-keys/events',
    'GET /api-keys/00000000-0000-4000-8000-000000000000',
  ])('is let through from anywhere: %s', async (request) => {
    for (const line of [
      'Origin: https://evil.example',
      'Sec-Fetch-Site: cross-site',
      'Origin: null',
    ]) {
      const answer = await sendRaw(createTestApp(apiKeys), [
        `${request} HTTP/1.1`,
        'X-User: admin',
        line,
      ])

      // The request has come as far as the database, which is out of reach.
      expect(answer.status).toBe(503)
    }
  })
})
