import { installAdopter, type Adopter } from '../support/adopter'

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('jest')
})

afterAll(() => adopter.remove())

describe('the tests of an app, in Jest with its default settings', () => {
  it('make, use and revoke a key through supertest, also under fake timers', async () => {
    await expect(adopter.run('node_modules/.bin/jest', 'supertest')).resolves.toBe('')
  })
})
