import { once } from 'node:events'

import * as fc from 'fast-check'

import { MissingPermissionError } from '../../lib'
import { permissions, type Options, type Permission } from '../support/app'
import { bearer } from '../support/http'
import { createAnswers, get, holdingOf, openResponse, statusOf, useRoles } from '../support/roles'
import { until } from '../support/until'

const [read, execute] = permissions

const { asked, hold, createInstance, createKey, createApp } = useRoles()

async function reasonOf(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted) await once(signal, 'abort')
  return signal.reason
}

describe('a key', () => {
  it('holds no permission that its owner lacks', async () => {
    const apiKeys = createInstance()
    const app = createApp(apiKeys)
    const { id, key } = await createKey()
    await hold('alice', [read, 'READ_BLOCK'])

    const [passed, refused] = [await get(app, read, key), await get(app, execute, key)]

    expect([passed.status, passed.body]).toEqual([200, [read]])
    expect(refused.status).toBe(403)
    expect(refused.headers['www-authenticate']).toBe(
      `Bearer realm="api", error="insufficient_scope", scope="${execute}"`,
    )
    expect(refused.body).toMatchObject({ code: 'missing_permission', missing: [execute] })
    expect(await statusOf(app, 'READ_BLOCK', key)).toBe(403)
    expect(await holdingOf(apiKeys, key)).toEqual([read])
    expect(await apiKeys.get(id)).toMatchObject({ permissions: [read, execute] })
    expect(asked).toEqual(['alice'])
  })

  it('is valid for a route without permissions if its owner holds none', async () => {
    const app = createApp(createInstance())
    const { key } = await createKey()
    await hold('alice', [])

    const response = await get(app, 'any', key)

    expect([response.status, response.body]).toEqual([200, []])
    expect(await statusOf(app, read, key)).toBe(403)
  })

  it('is refused without a call of grantable if it is invalid', async () => {
    const apiKeys = createInstance()
    const { id, key } = await createKey()
    await apiKeys.revoke(id)

    expect(await holdingOf(apiKeys, key)).toBe('revoked')
    expect(asked).toEqual([])
  })

  it('loses what its owner loses, at once in the notified process and within the bound in other processes', async () => {
    const [apiKeys, other] = [createInstance(), createInstance({ listen: false })]
    const [app, otherApp] = [createApp(apiKeys), createApp(other)]
    const { key } = await createKey()
    for (const each of [app, otherApp]) expect(await statusOf(each, execute, key)).toBe(200)

    await hold('alice', [read])
    expect(await statusOf(app, execute, key)).toBe(200)
    await apiKeys.ownerChanged({ type: 'user', id: 'alice' })

    expect(await statusOf(app, execute, key)).toBe(403)
    expect(await statusOf(app, read, key)).toBe(200)
    await until(async () => (await statusOf(otherApp, execute, key)) === 403)

    await hold('alice', [read, execute])
    await apiKeys.ownerChanged({ type: 'user', id: 'alice' })
    expect(await statusOf(app, execute, key)).toBe(200)
    await until(async () => (await statusOf(otherApp, execute, key)) === 200)
  })

  it('loses a permission within twice grantableMaxAgeMs if no process is notified', async () => {
    const app = createApp(createInstance({ grantableMaxAgeMs: 100 }))
    const { key } = await createKey()
    expect(await statusOf(app, execute, key)).toBe(200)

    await hold('alice', [read])

    await until(async () => (await statusOf(app, execute, key)) === 403)
  })

  it('causes a call of grantable for every request if grantableMaxAgeMs is 0', async () => {
    const app = createApp(createInstance({ grantableMaxAgeMs: 0 }))
    const { key } = await createKey()

    expect(await statusOf(app, execute, key)).toBe(200)
    await hold('alice', [read])
    expect(await statusOf(app, execute, key)).toBe(403)
    await hold('alice', [execute])
    expect(await statusOf(app, execute, key)).toBe(200)

    expect(asked).toHaveLength(3)
  })

  it('causes one call of grantable, however many requests come first', async () => {
    const apiKeys = createInstance()
    const [first, second] = [await createKey(), await createKey()]

    const holdings = await Promise.all(
      Array.from({ length: 500 }, (_, number) =>
        holdingOf(apiKeys, (number % 2 ? first : second).key),
      ),
    )

    expect(new Set(holdings.map(String))).toEqual(new Set([`${read},${execute}`]))
    expect(asked).toEqual(['alice'])
  })

  it('causes another call of grantable if the user is changed during the first', async () => {
    const { grantable, next, ...answers } = createAnswers()
    const apiKeys = createInstance({ grantable })
    const { key } = await createKey()

    const early = holdingOf(apiKeys, key)
    const beforeChange = await next()
    await apiKeys.ownerChanged({ type: 'user', id: 'alice' })
    const late = holdingOf(apiKeys, key)
    const afterChange = await next()
    afterChange.give([read])
    expect(await late).toEqual([read])
    beforeChange.give([read, execute])

    expect(await early).toEqual([read])
    expect(await holdingOf(apiKeys, key)).toEqual([read])
    expect(answers.waiting).toBe(0)
  })
})

describe('the signal of a key', () => {
  it('aborts only when the owner has lost a permission that a guard demanded', async () => {
    const [apiKeys, other] = [createInstance(), createInstance()]
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)

    await hold('alice', [read])
    await other.ownerChanged({ type: 'user', id: 'alice' })
    await until(() => asked.length === 2)
    expect(signal.aborted).toBe(false)
    await hold('alice', [execute])
    await other.ownerChanged({ type: 'user', id: 'alice' })

    expect(await reasonOf(signal)).toBeInstanceOf(MissingPermissionError)
    expect(signal.reason).toMatchObject({ missing: [read] })
    await close()
  })

  it('aborts when a later call of grantable lacks the permission', async () => {
    const apiKeys = createInstance({ grantableMaxAgeMs: 300 })
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)

    await hold('alice', [])
    await until(async () => {
      await apiKeys.verify(key)
      return signal.aborted
    })

    expect(signal.reason).toMatchObject({ code: 'missing_permission' })
    await close()
  })

  it('aborts without a notification and without another request', async () => {
    let held: readonly Permission[] = [read]
    const apiKeys = createInstance({
      grantableMaxAgeMs: 0,
      grantable({ id: userId }) {
        asked.push(userId)
        return held
      },
    })
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)
    // The first call was for the request, the second for the new signal.
    await until(() => asked.length === 2)

    held = []

    expect(await reasonOf(signal)).toMatchObject({ code: 'missing_permission' })
    await close()
  })

  it('aborts if the app can no longer name the permissions of the owner', async () => {
    let isAway = false
    const apiKeys = createInstance({
      grantableMaxAgeMs: 500,
      grantable() {
        if (isAway) throw new Error('no roles to be had')
        return [read]
      },
    })
    const { key } = await createKey()
    const { signal, close } = await openResponse(apiKeys, key)

    isAway = true

    expect(await reasonOf(signal)).toMatchObject({ code: 'database_unavailable' })
    await close()
  })
})

describe('any sequence of actions', () => {
  const users = ['alice', 'bob'] as const

  /** What each permission gives, if some imply others. */
  const implied: Record<string, readonly string[]> = {
    READ_GRAPH: ['READ_GRAPH'],
    EXECUTE_GRAPH: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    READ_BLOCK: ['READ_BLOCK'],
    EXECUTE_BLOCK: [...permissions],
  }
  const formerPermissions = {
    RUN: 'EXECUTE',
    EXECUTE: 'EXECUTE_GRAPH',
    LIST: 'READ_BLOCK',
    OLD: null,
  }
  const today: Record<string, string> = {
    RUN: 'EXECUTE_GRAPH',
    EXECUTE: 'EXECUTE_GRAPH',
    LIST: 'READ_BLOCK',
  }
  const implying = {
    permissions: {
      READ_GRAPH: 'Read graphs',
      EXECUTE_GRAPH: { description: 'Execute graphs', implies: ['READ_GRAPH'] },
      READ_BLOCK: 'Read blocks',
      EXECUTE_BLOCK: { description: 'Execute blocks', implies: ['EXECUTE_GRAPH', 'READ_BLOCK'] },
    },
    formerPermissions,
  } satisfies Options

  /** The names of today for some names. */
  const namesOf = (given: readonly string[]) =>
    given.map((name) => today[name] ?? name).filter((name) => name in implied)

  type Action =
    | { do: 'give roles'; user: number; held: string[] }
    | { do: 'create'; user: number; wanted: string[] }
    | { do: 'set permissions'; user: number; key: number; wanted: string[] }
    | { do: 'rename' | 'rotate' | 'suspend' | 'reactivate'; user: number; key: number }
    | { do: 'manage keys by key'; key: number; wanted: string[] }
    | { do: 'drop permission' | 'rename permission'; name: string }
    | { do: 'use'; key: number; permission: Permission }

  const user = fc.constantFrom(0, 1)
  const key = fc.nat(5)
  const anyNames = [...permissions, ...Object.keys(formerPermissions)]
  const set = fc.subarray(anyNames)
  const wanted = fc.subarray(anyNames, { minLength: 1 })

  const action = fc.oneof<fc.MaybeWeightedArbitrary<Action>[]>(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('give roles'), user, held: set }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('create'), user, wanted }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('set permissions'), user, key, wanted }) },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constantFrom('rename', 'rotate', 'suspend', 'reactivate'),
        user,
        key,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('manage keys by key'), key, wanted }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constantFrom('drop permission', 'rename permission'),
        name: fc.constantFrom('EXECUTE_BLOCK', 'RUN', 'OLD'),
      }),
    },
    {
      weight: 10,
      arbitrary: fc.record({
        do: fc.constant('use'),
        key,
        permission: fc.constantFrom(...permissions),
      }),
    },
  )

  interface KnownKey {
    id: string
    owner: string
    key: string
    held: string[]
    isSuspended: boolean
  }

  it.each<[string, Options, (held: readonly string[]) => readonly string[]]>([
    ['permissions that stand for themselves', {}, (held) => held],
    [
      'permissions that imply others, and names of before',
      implying,
      (held) => namesOf(held).flatMap((name) => implied[name] ?? []),
    ],
  ])(
    'refuses a key exactly when its owner lacks the permission, with %s',
    async (_, options, given) => {
      const roles = new Map<string, readonly string[]>()
      const apiKeys = createInstance({
        ...options,
        grantableMaxAgeMs: 0,
        // The names of before are not among the types of the app.
        grantable: async ({ id }) => (roles.get(id) ?? []) as Permission[],
      })
      const app = createApp(apiKeys)

      function as(name: string, method: 'post' | 'put' | 'patch', path = '') {
        return app.as(name)[method](`/api-keys${path}`)
      }

      /** Plays the actions, and returns the wrong answers. */
      async function play(actions: readonly Action[]): Promise<string[]> {
        const keys: KnownKey[] = []
        const faults: string[] = []
        for (const name of users) roles.set(name, permissions)

        async function act(action: Action) {
          const name = 'user' in action ? String(users[action.user]) : ''
          if (action.do === 'give roles') {
            roles.set(name, action.held)
            return
          }
          if (action.do === 'create') {
            const body = { name: 'A', permissions: action.wanted }
            const response = await as(name, 'post').send(body)
            if (response.status !== 201) return
            const { apiKey, plainTextKey } = response.body
            const made = { id: apiKey.id, owner: name, key: plainTextKey, isSuspended: false }
            keys.push({ ...made, held: action.wanted })
            return
          }
          if ('name' in action) {
            const { name } = action
            const isRenamed = action.do === 'rename permission'
            if (isRenamed) await apiKeys.renamePermission(name, 'READ_GRAPH')
            else await apiKeys.dropPermission(name)
            // Keys have names of today, so that no key has the names of before.
            for (const key of keys) {
              const names = isRenamed ? ['READ_GRAPH'] : []
              key.held = namesOf(key.held).flatMap((held) => (held === name ? names : held))
            }
            return
          }

          const known = keys[action.key % (keys.length || 1)]
          if (!known) return
          switch (action.do) {
            case 'set permissions': {
              const body = { permissions: action.wanted }
              const response = await as(name, 'put', `/${known.id}/permissions`).send(body)
              if (response.status === 200) known.held = action.wanted
              return
            }
            case 'rename':
              await as(name, 'patch', `/${known.id}`).send({ name: 'B' })
              return
            case 'rotate': {
              const response = await as(name, 'post', `/${known.id}/rotate`)
              if (response.status === 200) known.key = response.body.plainTextKey
              return
            }
            case 'suspend':
            case 'reactivate': {
              const response = await as(name, 'post', `/${known.id}/${action.do}`)
              if (response.status === 200) known.isSuspended = action.do === 'suspend'
              return
            }
            case 'manage keys by key': {
              const body = { permissions: action.wanted }
              const response = await as(known.owner, 'put', `/${known.id}/permissions`)
                .set(bearer(known.key))
                .send(body)
              if (response.status !== 403) faults.push(`a key managed keys: ${response.status}`)
              return
            }
            case 'use': {
              const { status } = await get(app, action.permission, known.key)
              const mayPass =
                given(known.held).includes(action.permission) &&
                given(roles.get(known.owner) ?? []).includes(action.permission)
              const due = known.isSuspended ? 401 : mayPass ? 200 : 403
              if (status !== due) faults.push(`${JSON.stringify(known)}: ${status} for ${due}`)
            }
          }
        }

        for (const action of actions) await act(action)
        return faults
      }

      await fc.assert(
        fc.asyncProperty(
          fc.array(action, { minLength: 10, maxLength: 30, size: 'max' }),
          async (actions) => {
            expect(await play(actions)).toEqual([])
          },
        ),
        { numRuns: Number(process.env.PRIVILEGE_RUNS ?? 20) },
      )
    },
  )
})
