import { inFull, installAdopter, type Adopter } from '../support/adopter'
import { firstExample } from '../support/readme'

/**
 * The smallest configuration of a strict project. It checks our declarations and the declarations of our dependencies,
 * too.
 */
const compilerOptions = { target: 'es2022', module: 'nodenext', strict: true, noEmit: true }

const adopters = new Map<string, Promise<Adopter>>()

/** Returns the project with the types of a version of Express. npm installs it once. */
function adopterOf(version: string): Promise<Adopter> {
  const known = adopters.get(version)
  if (known) return known
  const adopter = installAdopter(`types/${version}`)
  adopters.set(version, adopter)
  return adopter
}

afterAll(async () => {
  for (const adopter of adopters.values()) await (await adopter).remove()
})

describe.each(inFull ? ['4', '5'] : ['5'])(
  'the first example of the README, with the types of Express %s',
  (types) => {
    let adopter: Adopter

    beforeAll(async () => {
      adopter = await adopterOf(types)
      await adopter.write('example.ts', firstExample())
    })

    it.each(
      (inFull ? ['5.7', '5.9', '7'] : ['5.7', '7']).flatMap((version) => [
        [version, 'none of Passport', ['node']] as const,
        [version, 'those of Passport', ['node', 'passport']] as const,
      ]),
    )('compiles in TypeScript %s, with %s', async (version, _, types) => {
      const options = { ...compilerOptions, types }
      const tsconfig = JSON.stringify({ compilerOptions: options, files: ['example.ts'] })
      await adopter.write('tsconfig.json', tsconfig)

      const printed = await adopter.run('node', `node_modules/typescript-${version}/bin/tsc`)

      expect(printed).toBe('')
    })
  },
)

/** What an editor shows: the errors of a file, and the hovers of calls by the name of the function. */
interface Shown {
  errors: string[]
  hovers: Record<string, string>
}

/** An app with every option that types are made from. */
const everything = `
  import { createApiKeys } from 'express-api-keys'
  import type { Sequelize } from 'sequelize'

  declare const sequelize: Sequelize
  const apiKeys = createApiKeys({
    sequelize,
    environments: { live: 'acme_live', test: 'acme_test' },
    acceptedEnvironments: ['live'],
    permissions: { READ_GRAPH: 'Read', EXECUTE_GRAPH: 'Run', ADMIN: { description: 'All', implies: '*' } },
    users: { table: 'users', type: 'integer' },
    organizations: { table: 'organizations', type: 'uuid' },
    services: true,
    resources: { graph: true, project: true },
  })
  apiKeys.requirePermission('READ_GRAPH')
  apiKeys.authenticate()
  void apiKeys.create({ userId: 7, environment: 'live', name: 'CI', permissions: ['READ_GRAPH'] })
`

describe('what an editor shows over a call', () => {
  it('is one line for a guard, and at most 16 lines for create', async () => {
    const adopter = await adopterOf('5')
    await adopter.write('everything.ts', everything)
    const tsconfig = JSON.stringify({ compilerOptions, files: ['everything.ts'] })
    await adopter.write('tsconfig.json', tsconfig)
    const calls = ['requirePermission', 'authenticate', 'create']

    const printed = await adopter.run('node', 'hovers.cjs', 'everything.ts', ...calls)

    const { errors, hovers } = JSON.parse(printed) as Shown
    expect(errors).toEqual([])
    const lines = calls.map((name) => hovers[name]?.split('\n').length)
    expect(hovers.requirePermission).toContain(
      'requirePermission(demand: Demand<"READ_GRAPH" | "EXECUTE_GRAPH" | "ADMIN">, ' +
        'options?: GuardOptions<"live" | "test", "graph" | "project"> | undefined): Guard',
    )
    expect(lines.slice(0, 2)).toEqual([1, 1])
    expect(hovers.create).toContain('plainTextKey: string')
    expect(lines[2]).toBeLessThanOrEqual(16)
  })
})
