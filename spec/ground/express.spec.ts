import { installAdopter, type Adopter, type RunningProgram } from '../support/adopter'

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('express')
})

afterAll(() => adopter.remove())

function bearer(key: string) {
  return { headers: { Authorization: `Bearer ${key}` } }
}

describe('behind a guard', () => {
  let app: RunningProgram

  beforeEach(async () => {
    app = await adopter.start('limiters.cjs')
  })

  afterEach(() => app.stop())

  it('express-rate-limit keeps its own fields beside the limits of a key', async () => {
    const answer = await fetch(`${app.url}/limited`, bearer(await adopter.createKey()))

    expect(answer.headers.get('RateLimit-Policy')).toMatch(/"burst";q=100.*"1-in-1min"; q=1/)
    expect(answer.headers.get('RateLimit')).toMatch(/"burst";r=99.*"1-in-1min"; r=0/)
  })
})
