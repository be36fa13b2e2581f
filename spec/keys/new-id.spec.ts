import { newId } from '../../lib/keys/new-id'
import { setClock } from '../support/clock'

afterEach(() => jest.useRealTimers())

describe('newId', () => {
  it('returns ids that go up, many in a millisecond, and if the clock is set back', () => {
    setClock(new Date('2030-01-01'))
    const first = Array.from({ length: 10_000 }, () => newId())
    setClock(new Date('2029-12-31'))
    const ids = [...first, ...Array.from({ length: 10_000 }, () => newId())]

    expect(new Set(ids).size).toBe(20_000)
    expect(ids).toEqual(ids.toSorted())
    for (const id of ids) {
      expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    }
  })
})
