import type { Transaction } from 'sequelize'

import { createEmitter } from '../../lib/keys/emitter'

// A transaction only identifies its events here.
const transaction = {} as Transaction

function createListened() {
  const emitter = createEmitter()
  const received: unknown[] = []
  emitter.on('retired_secret_used', ({ apiKeyId }) => received.push(apiKeyId))
  emitter.on('error', (notice) => received.push(notice))
  return { emitter, received }
}

describe('an event that waits for a transaction', () => {
  it('is emitted once, after calls of the library', () => {
    const { emitter, received } = createListened()
    emitter.emitAfter(transaction, 'retired_secret_used', { apiKeyId: 'one' })
    emitter.callAfter(transaction, null, () => received.push('library'))
    expect(received).toEqual([])

    emitter.committed(transaction)
    emitter.committed(transaction)

    expect(received).toEqual(['library', 'one'])
  })

  it('becomes one error per event if it is unknown whether the transaction has committed', () => {
    const { emitter, received } = createListened()
    const error = new Error('no answer')
    for (const apiKeyId of ['one', 'two']) {
      emitter.emitAfter(transaction, 'retired_secret_used', { apiKeyId })
    }
    emitter.callAfter(transaction, null, () => received.push('library'))

    emitter.lost(transaction, error)
    emitter.committed(transaction)

    expect(received).toEqual([{ error, notice: 'retired_secret_used' }])
  })

  it('is awaited only if it has a listener', () => {
    const { emitter } = createListened()
    emitter.callAfter(transaction, null, () => {})
    emitter.emitAfter(transaction, 'unavailable', { error: null, address: null })
    expect(emitter.isAwaited(transaction)).toBe(false)

    emitter.emitAfter(transaction, 'retired_secret_used', { apiKeyId: 'one' })
    expect(emitter.isAwaited(transaction)).toBe(true)
  })
})
