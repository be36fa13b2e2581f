import { installAdopter, type Adopter } from '../support/adopter'

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('jest')
})

afterAll(() => adopter.remove())

describe('the tests of an app, in Jest with its default settings', () => {
  it.each([
    ['supertest, also under fake timers', 'supertest'],
    ['node-mocks-http', 'mocks'],
  ])('pass with %s', async (_, file) => {
    await expect(adopter.run('node_modules/.bin/jest', file)).resolves.toBe('')
  })
})

describe('tests with light-my-request', () => {
  it('use a key, and are refused without one', async () => {
    const [accepted, refused] = (await adopter.run('node', 'inject.cjs')).split('\n')

    expect(accepted).toBe('200 {"ranFor":"alice"}')
    expect(refused).toMatch(/^401 .*"code":"missing_credential"/)
  })
})
