import { vectors } from '../support/imported-keys'
import { useWorld } from '../support/world'

describe.each(Object.entries(vectors))('the keys of %s', (_, { source, key, row, nearMisses }) => {
  const world = useWorld({ options: { imports: [source] } })
  const other = () => world.createProcess({ imports: [source] })

  it('are accepted once they are imported', async () => {
    const before = await world.apiKeys.verify(key)
    const report = await world.apiKeys.importKeys(source.name, [row])
    // A key with a salt has no hash of ours before its first use.
    const explained = await other().apiKeys.explain(key)
    const after = await world.apiKeys.verify(key)
    const again = await world.apiKeys.verify(key)

    expect(before).toEqual({ valid: false, code: 'malformed' })
    expect(report).toEqual({ imported: 1, known: 0, changed: 0, refused: [], unmapped: [] })
    const apiKey = { userId: 'alice', permissions: ['READ_GRAPH'] }
    expect(explained).toMatchObject({ isAccepted: true, reason: null })
    expect(after).toMatchObject({ valid: true, apiKey })
    expect(again).toMatchObject({ valid: true, apiKey })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('are accepted by other processes', async () => {
    const { apiKeys } = other()

    expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
  })

  it('are explained as they are verified', async () => {
    const { apiKeys } = other()

    const { isAccepted, apiKey, conditions } = await apiKeys.explain(key)
    const missed = await Promise.all(nearMisses.map((text) => apiKeys.explain(text)))

    expect({ isAccepted, apiKey }).toMatchObject({
      isAccepted: true,
      apiKey: { owner: { type: 'user', id: 'alice' } },
    })
    expect(conditions[1]).toMatchObject({
      holds: true,
      because: `It was imported from ${source.name}.`,
    })
    for (const explanation of missed) {
      expect(explanation).toMatchObject({ isAccepted: false, reason: 'malformed', apiKey: null })
    }
  })

  it('are known if they are imported again', async () => {
    expect(await world.apiKeys.importKeys(source.name, [row])).toMatchObject({
      imported: 0,
      known: 1,
    })
  })

  it.each(nearMisses)('are not mistaken for %s', async (text) => {
    expect(await world.apiKeys.verify(text)).toEqual({ valid: false, code: 'malformed' })
  })
})
