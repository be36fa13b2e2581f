import { expectFaults } from '../support/problem'
import { useWorld } from '../support/world'

const boundMs = 200

const { apiKeys, http, rows, createKey } = useWorld({ options: { maxStalenessMs: boundMs } })

describe('?everywhere=true', () => {
  it.each<[string, 'delete' | 'post' | 'put', string, object | undefined]>([
    ['a revocation', 'delete', '', undefined],
    ['a suspension', 'post', '/suspend', { reason: 'leaked' }],
    ['a change of permissions', 'put', '/permissions', { permissions: ['READ_BLOCK'] }],
  ])(
    'makes an administrator wait for %s until the bound has passed',
    async (_, method, path, body) => {
      const { id } = await createKey()

      const before = performance.now()
      const admin = http.as('admin')
      const response = await admin[method](`/admin/api-keys/${id}${path}?everywhere=true`, body)

      expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
      expect(response.status).toBe(200)
      expect(response.body).toEqual(JSON.parse(JSON.stringify(await apiKeys.get(id))))
    },
  )

  it('makes an administrator wait for the end of a rotation', async () => {
    const { id } = await createKey()
    await apiKeys.rotate(id)

    const before = performance.now()
    const response = await http.as('admin').delete(`/admin/api-keys/${id}/rotation?everywhere=true`)

    expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
    expect(response.body).toMatchObject({ id, previousSecret: null })
  })

  it('makes an administrator wait for the revocation of unused keys', async () => {
    const { id } = await createKey()
    await rows(`UPDATE api_keys SET created_at = now() - interval '9 days' WHERE id = '${id}'`)

    const before = performance.now()
    const response = await http
      .as('admin')
      .post('/admin/api-keys/revoke-unused?everywhere=true', { unusedForDays: 8 })

    expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
    expect(response.body).toEqual({ revoked: 1 })
  })

  it('makes an administrator wait for the revocation of all keys of a user', async () => {
    await createKey({ userId: 'bob' })

    const before = performance.now()
    const response = await http
      .as('admin')
      .post('/admin/api-keys/revoke-all?everywhere=true', { userId: 'bob' })

    expect(performance.now() - before).toBeGreaterThanOrEqual(boundMs)
    expect(response.body).toEqual({ revoked: 1 })
  })

  it('is for administrators', async () => {
    const { id } = await createKey()

    const response = await http.as('alice').delete(`/api-keys/${id}?everywhere=true`)

    expectFaults(response, { '#/everywhere': 'is for administrators' })
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it.each(['yes', '', '1', 'true&everywhere=true'])('is refused as %j', async (value) => {
    const { id } = await createKey()

    const response = await http.as('admin').delete(`/admin/api-keys/${id}?everywhere=${value}`)

    expectFaults(response, { '#/everywhere': 'must be true or false' })
    expect(await apiKeys.get(id)).toMatchObject({ status: 'ACTIVE' })
  })

  it.each<[string, 'delete' | 'patch' | 'post', string, object, string]>([
    ['mistyped', 'delete', '?everywere=true', {}, '#/everywere'],
    [
      'of a change that needs no waiting',
      'patch',
      '?everywhere=true',
      { name: 'B' },
      '#/everywhere',
    ],
    ['of a reactivation', 'post', '/reactivate?everywhere=true', {}, '#/everywhere'],
    ['of a rotation', 'post', '/rotate?everywhere=true', {}, '#/everywhere'],
  ])('is refused if it would have no effect: %s', async (_, method, path, body, pointer) => {
    const { id } = await createKey()
    const before = await apiKeys.get(id)

    for (const [mount, user] of [
      ['/admin/api-keys', 'admin'],
      ['/api-keys', 'alice'],
    ] as const) {
      const response = await http.as(user)[method](`${mount}/${id}${path}`, body)

      expect(response.status).toBe(422)
      expect(response.body.errors).toMatchObject([{ pointer }])
    }
    expect(await apiKeys.get(id)).toEqual(before)
  })

  it('may be false', async () => {
    const { id } = await createKey()

    const response = await http.as('admin').delete(`/admin/api-keys/${id}?everywhere=false`)

    expect(response.body).toMatchObject({ status: 'REVOKED' })
  })
})
