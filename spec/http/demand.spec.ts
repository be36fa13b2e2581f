import { createPermissionCheck } from '../../lib/http/demand'
import { permissionsOf } from '../support/permissions'

function messageOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    if (error instanceof TypeError) return error.message
    throw error
  }
  return 'nothing was thrown'
}

describe('createPermissionCheck', () => {
  const known = permissionsOf(['READ_GRAPH', 'EXECUTE_GRAPH'])

  it.each([
    [[], 'needs at least one permission'],
    [
      ['DELETE_ALL'],
      `"DELETE_ALL" is not one of the app's permissions. It must be one of READ_GRAPH, EXECUTE_GRAPH.`,
    ],
    [
      ['READ_GRAPH', 'EXECUTE_GRAPHS'],
      `"EXECUTE_GRAPHS" is not one of the app's permissions. Did you mean EXECUTE_GRAPH?`,
    ],
    [
      [undefined],
      `undefined is not one of the app's permissions. It must be one of READ_GRAPH, EXECUTE_GRAPH.`,
    ],
  ])('refuses %p on behalf of its caller', (names, refusal) => {
    const message = messageOf(() => createPermissionCheck('requireIt', names, known))

    expect(message).toBe(`requireIt: ${refusal}`)
  })

  it('takes names that the app has', () => {
    expect(() => createPermissionCheck('requireIt', ['READ_GRAPH'], known)).not.toThrow()
  })
})
