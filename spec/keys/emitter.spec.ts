import type { Transaction } from 'sequelize'

import { createEmitter } from '../../lib/keys/emitter'

// A transaction is no more than a key here.
const transaction = {} as Transaction

function createListened() {
  const emitter = createEmitter()
  const heard: unknown[] = []
  emitter.on('retired_secret_used', ({ apiKeyId }) => heard.push(apiKeyId))
  emitter.on('error', (notice) => heard.push(notice))
  return { emitter, heard }
}

describe('an event that waits for a transaction', () => {
  it('is emitted once, after calls of the library', () => {
    const { emitter, heard } = createListened()
    emitter.emitAfter(transaction, 'retired_secret_used', { apiKeyId: 'one' })
    emitter.callAfter(transaction, null, () => heard.push('library'))
    expect(heard).toEqual([])

    emitter.committed(transaction)
    emitter.committed(transaction)

    expect(heard).toEqual(['library', 'one'])
  })

  it('becomes one error per event if it is unknown whether the transaction has committed', () => {
    const { emitter, heard } = createListened()
    const error = new Error('no answer')
    for (const apiKeyId of ['one', 'two']) {
      emitter.emitAfter(transaction, 'retired_secret_used', { apiKeyId })
    }
    emitter.callAfter(transaction, null, () => heard.push('library'))

    emitter.lost(transaction, error)
    emitter.committed(transaction)

    expect(heard).toEqual([{ error, notice: 'retired_secret_used' }])
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
