import { installAdopter, type Adopter } from '../support/adopter'

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('runtimes')
})

afterAll(() => adopter.remove())

describe('the whole life of a key', () => {
  it.each([
    ['Bun', ['bun']],
    ['Deno', ['deno', 'run', '--allow-all']],
  ])('passes on %s', async (_, [program = '', ...args]) => {
    const printed = await adopter.run(`node_modules/.bin/${program}`, ...args, 'live.cjs')

    expect(printed).toMatch(/^complete on PostgreSQL \d+\n$/)
  })
})
