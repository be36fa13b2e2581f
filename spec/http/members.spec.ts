import type { Express, Request } from 'express'
import * as fc from 'fast-check'

import { createApiKeys } from '../../lib'
import { createTestApp, permissions, type Permission } from '../support/app'
import { createDatabase, type Database } from '../support/database'
import { createHttp, type Http } from '../support/http'
import { expectProblem } from '../support/problem'

/** What each permission gives. */
const given: Record<string, readonly string[]> = {
  READ_GRAPH: ['READ_GRAPH'],
  EXECUTE_GRAPH: ['READ_GRAPH', 'EXECUTE_GRAPH'],
  READ_BLOCK: ['READ_BLOCK'],
  EXECUTE_BLOCK: permissions,
}

const formerPermissions = { RUN: 'EXECUTE_GRAPH', LIST: 'READ_BLOCK', OLD: null }

/** All that some names give, by their names of today. */
function allOf(names: readonly string[]): Set<string> {
  const today: Readonly<Record<string, string | null>> = formerPermissions
  return new Set(names.flatMap((name) => given[today[name] ?? name] ?? []))
}

let database: Database
let http: Http
/** What the organization holds, and what each member may give. */
const held = new Map<string, readonly string[]>()

/** True if all that some names give is among what a member and the organization may give. */
function mayGive(who: string, wanted: readonly string[]): boolean {
  const [own, whole] = [allOf(held.get(who) ?? []), allOf(held.get('organization') ?? [])]
  return [...allOf(wanted)].every((name) => own.has(name) && whole.has(name))
}

beforeAll(async () => {
  database = await createDatabase('empty')
  await database.connect().query(`
    CREATE TABLE organizations (id integer PRIMARY KEY);
    INSERT INTO organizations VALUES (7)`)
  const apiKeys = createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'agpt',
    permissions: {
      READ_GRAPH: 'Read graphs',
      EXECUTE_GRAPH: { description: 'Execute graphs', implies: ['READ_GRAPH'] },
      READ_BLOCK: 'Read blocks',
      EXECUTE_BLOCK: { description: 'Execute blocks', implies: '*' },
    },
    formerPermissions,
    organizations: { table: 'organizations', type: 'integer' },
    currentUser: (req: Request) => ({ id: String(req.get('X-User')), admin: false }),
    isAdmin: () => false,
    grantableMaxAgeMs: 0,
    // The names of before are not among the types of the app.
    grantable: () => (held.get('organization') ?? []) as Permission[],
    maxKeysPerOwner: Infinity,
  })
  database.closeFirst(apiKeys)
  await apiKeys.migrate()
  const router = apiKeys.router({
    organization: (_, user) => ({ id: 7, permissions: (held.get(user.id) ?? []) as Permission[] }),
  })
  function addRoutes(app: Express) {
    app.use('/organization', router)
    for (const permission of permissions) {
      app.get(`/${permission}`, apiKeys.requirePermission(permission), (_req, res) => res.end())
    }
  }
  http = createHttp(() => createTestApp(apiKeys, addRoutes))
})

afterAll(() => database.drop())

type Action =
  | { do: 'give'; who: string; held: string[] }
  | { do: 'create'; who: string; wanted: string[] }
  | { do: 'set permissions'; who: string; key: number; wanted: string[] }
  | { do: 'rotate'; who: string; key: number }
  | { do: 'use'; key: number; permission: string }

interface KnownKey {
  id: string
  secret: string
  held: string[]
}

describe('members of an organization', () => {
  const names = [...permissions, ...Object.keys(formerPermissions)]
  const member = fc.constantFrom('alice', 'bob')
  const key = fc.nat(5)
  const wanted = fc.subarray(names, { minLength: 1 })
  const action = fc.oneof<fc.MaybeWeightedArbitrary<Action>[]>(
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('give'),
        who: fc.constantFrom('alice', 'bob', 'organization'),
        held: fc.subarray(names),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('create'), who: member, wanted }) },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constant('set permissions'), who: member, key, wanted }),
    },
    { weight: 5, arbitrary: fc.record({ do: fc.constant('rotate'), who: member, key }) },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('use'),
        key,
        permission: fc.constantFrom(...permissions),
      }),
    },
  )

  /** Plays the actions, and returns what was given to anyone who may not have it, and what was refused to others. */
  async function play(actions: readonly Action[]): Promise<string[]> {
    const keys: KnownKey[] = []
    const faults: string[] = []
    for (const who of ['alice', 'bob', 'organization']) held.set(who, permissions)

    async function act(action: Action) {
      if (action.do === 'give') {
        held.set(action.who, action.held)
        return
      }
      if (action.do === 'create') {
        const body = { name: 'CI', permissions: action.wanted }
        const { status, body: made } = await http.as(action.who).post('/organization', body)
        if (status !== 201) return
        const { apiKey, plainTextKey } = made
        keys.push({ id: apiKey.id, secret: plainTextKey, held: action.wanted })
        if (!mayGive(action.who, action.wanted)) faults.push(`created ${JSON.stringify(action)}`)
        return
      }
      const known = keys[action.key % (keys.length || 1)]
      if (!known) return
      if (action.do === 'set permissions') {
        const body = { permissions: action.wanted }
        const path = `/organization/${known.id}/permissions`
        const { status } = await http.as(action.who).put(path, body)
        if (status !== 200) return
        const before = allOf(known.held)
        const added = [...allOf(action.wanted)].filter((name) => !before.has(name))
        known.held = action.wanted
        if (!mayGive(action.who, added)) faults.push(`added ${JSON.stringify(action)}`)
        return
      }
      if (action.do === 'rotate') {
        const path = `/organization/${known.id}/rotate`
        const { status, body } = await http.as(action.who).post(path, {})
        const own = allOf(held.get(action.who) ?? [])
        const mayHave = [...allOf(known.held)].every((name) => own.has(name))
        if ((status === 200) !== mayHave)
          faults.push(`rotated ${JSON.stringify(action)}: ${status}`)
        if (status === 200) known.secret = body.plainTextKey
        return
      }
      const { status } = await http.with(known.secret).get(`/${action.permission}`)
      const mayPass =
        allOf(known.held).has(action.permission) &&
        allOf(held.get('organization') ?? []).has(action.permission)
      if ((status === 200) !== mayPass) faults.push(`${JSON.stringify(action)}: ${status}`)
    }

    for (const action of actions) await act(action)
    return faults
  }

  it('get no permission that they or the organization may not give, by any sequence of actions', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(action, { minLength: 10, maxLength: 30, size: 'max' }),
        async (actions) => {
          expect(await play(actions)).toEqual([])
        },
      ),
      { numRuns: Number(process.env.PRIVILEGE_RUNS ?? 40) },
    )
  })

  it('may not rotate a key that may do more by what its permission implies', async () => {
    for (const who of ['alice', 'bob', 'organization']) held.set(who, permissions)
    const body = { name: 'CI', permissions: ['EXECUTE_GRAPH'] }
    const { body: made } = await http.as('alice').post('/organization', body).expect(201)
    held.set('bob', ['EXECUTE_BLOCK'])
    const path = `/organization/${made.apiKey.id}/rotate`
    await http.as('bob').post(path, {}).expect(200)

    held.set('bob', ['READ_GRAPH', 'READ_BLOCK'])
    const refused = await http.as('bob').post(path, {})

    expect(refused.status).toBe(403)
    expectProblem(refused, 'exceeds_access')
  })
})
