import { installAdopter, type Adopter, type RunningProgram } from '../support/adopter'

describe.each(['11', '12'])('an app of Nest %s', (version) => {
  let adopter: Adopter
  let app: RunningProgram
  let headers: Record<string, string>

  beforeAll(async () => {
    adopter = await installAdopter(`nest/${version}`)
  })

  afterAll(() => adopter.remove())

  beforeEach(async () => {
    app = await adopter.start('app.cjs')
    headers = { Authorization: `Bearer ${await adopter.createKey()}` }
  })

  afterEach(() => app.stop())

  it('is guarded by a guard that its module applies', async () => {
    const accepted = await fetch(`${app.url}/guarded`, { headers })
    const limited = await fetch(`${app.url}/guarded`, { headers })
    const refused = await fetch(`${app.url}/guarded`)

    expect(await accepted.json()).toEqual({ ranFor: 'alice' })
    expect(limited.status).toBe(429)
    expect(limited.headers.get('Retry-After')).toMatch(/^\d+$/)
    expect(refused.status).toBe(401)
    expect(refused.headers.get('WWW-Authenticate')).toBe('Bearer realm="api"')
  })

  it("is guarded by the strategy, whose refusals are all Nest's own 401", async () => {
    const accepted = await fetch(`${app.url}/passport`, { headers })
    const limited = await fetch(`${app.url}/passport`, { headers })
    const malformed = await fetch(`${app.url}/passport`, { headers: { Authorization: 'Bearer' } })
    const refused = await fetch(`${app.url}/passport`)

    expect(await accepted.json()).toEqual({ ranFor: 'alice' })
    for (const answer of [limited, malformed, refused]) {
      expect(answer.status).toBe(401)
      expect(answer.headers.get('WWW-Authenticate')).toBeNull()
    }
  })

  it('answers refusals of the functions with their status', async () => {
    const answers = await Promise.all(
      ['shown', 'created'].map((path) => fetch(`${app.url}/${path}`)),
    )

    expect(answers.map(({ status }) => status)).toEqual([404, 422])
  })
})
