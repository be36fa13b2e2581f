import { installAdopter, type Adopter } from '../support/adopter'

interface Span {
  traceId: string
  isRequest: boolean
  startedAt: number
  endedAt: number
  name: string
}

let adopter: Adopter

afterEach(() => adopter.remove())

/**
 * Makes a key through the app and sends it in every place, good and bad. Returns all keys and the output of the app.
 */
async function trace() {
  const app = await adopter.start('app.cjs')
  const created = await fetch(`${app.url}/api-keys`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ name: 'Canary', permissions: ['READ_GRAPH'] }),
  })
  const { plainTextKey } = (await created.json()) as { plainTextKey: string }
  const cutOff = plainTextKey.slice(0, -1)

  const statuses = []
  for (const path of ['guarded', 'open', 'failing']) {
    for (const key of [plainTextKey, cutOff]) {
      for (const headers of [{ Authorization: `Bearer ${key}` }, { 'X-API-Key': key }]) {
        const { status } = await fetch(`${app.url}/${path}`, { headers })
        statuses.push(status)
      }
    }
  }
  expect(created.status).toBe(201)
  expect(statuses).toEqual([200, 200, 401, 401, 200, 200, 200, 200, 500, 500, 401, 401])

  return { cutOff, printed: await app.stop() }
}

describe.each(['10', '11'])('Sentry %s, set up as the README says', (version) => {
  it('is sent no key, and nothing but requests', async () => {
    adopter = await installAdopter(`sentry/${version}`)

    const { cutOff, printed } = await trace()

    const roots = [...printed.matchAll(/"transaction":"([^"]+)"/g)].map(([, name]) => name)
    expect(printed).toMatch(/"type":"(transaction|span)"/)
    expect(printed).toMatch(/"value":"The route has failed for alice"/)
    expect(printed).not.toContain(cutOff)
    expect(roots.length).toBeGreaterThan(0)
    expect(roots.filter((name) => !/^(GET|POST) /.test(String(name)))).toEqual([])
  })
})

describe('OpenTelemetry for HTTP and pg', () => {
  it('has spans without keys, and only spans that a request waits for', async () => {
    adopter = await installAdopter('opentelemetry')

    const { cutOff, printed } = await trace()

    const spans = printed
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Span)
    const requests = new Map(
      spans.filter(({ isRequest }) => isRequest).map((span) => [span.traceId, span]),
    )
    const late = spans.filter(
      ({ traceId, startedAt }) => startedAt > (requests.get(traceId)?.endedAt ?? Infinity),
    )
    expect(requests.size).toBe(13)
    expect(spans.some(({ name }) => name.startsWith('pg.query:'))).toBe(true)
    expect(printed).not.toContain(cutOff)
    expect(late).toEqual([])
  })
})
