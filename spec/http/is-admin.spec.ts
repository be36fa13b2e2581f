import { createApiKeys } from '../../lib'
import { expectProblem } from '../support/problem'
import { useWorld } from '../support/world'

const { sequelize, createProcess } = useWorld({
  options: {
    header: 'X-API-Key',
    maxKeysPerOwner: 4,
    grantable: ({ id: userId }) =>
      userId === 'intern' ? ['READ_GRAPH'] : ['READ_GRAPH', 'READ_BLOCK'],
  },
})

describe('isAdmin', () => {
  it.each([
    ['false', () => false],
    ['null', () => null],
    ['nothing', () => undefined],
    ['a promise of false', async () => false],
    ['what is as good as true elsewhere', () => 1 as unknown as boolean],
  ])('refuses every user with %s', async (_, isAdmin) => {
    const { http } = createProcess({ isAdmin })

    const answer = await http.as('admin').get('/admin/api-keys')

    expectProblem(answer, 'not_an_admin')
  })

  it('may take its time', async () => {
    const { http } = createProcess({ isAdmin: async ({ id }) => id === 'root' })

    const answer = await http.as('root').get('/admin/api-keys')

    expect(answer.status).toBe(200)
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('no directory')
      },
    ],
    ['rejects', () => Promise.reject(new Error('no directory'))],
  ])('reaches the app’s error handler if it %s', async (_, isAdmin) => {
    const { http } = createProcess({ isAdmin })

    const answer = await http.as('admin').get('/admin/api-keys')

    expect(answer.status).toBe(500)
    expect(answer.body).toEqual({ app: 'no directory' })
  })

  it('is needed to make the router, and so is currentUser', () => {
    const options = {
      sequelize,
      keyPrefix: 'agpt',
      permissions: ['READ_GRAPH'],
    } as const
    const withoutAdmin = createApiKeys({ ...options, currentUser: () => ({ id: 'alice' }) })
    const withoutUser = createApiKeys({ ...options, isAdmin: () => true })

    for (const lacking of [withoutAdmin, withoutUser]) {
      expect(() => lacking.adminRouter()).toThrow(
        new TypeError('adminRouter: needs the options currentUser and isAdmin of createApiKeys'),
      )
    }
  })
})
