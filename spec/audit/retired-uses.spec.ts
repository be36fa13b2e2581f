import { newKey } from '../support/keys'
import { useTrail } from '../support/trail'

const { apiKeys } = useTrail()

describe('the use of a retired secret', () => {
  it.each([
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    [`unknown'; DROP TABLE api_keys; --`, null],
    [undefined, null],
  ])('leaves an entry of the library with the address of the use: %s', async (ip, address) => {
    const userId = `O'Brien {“a”,\\} \u{1f511}`
    const { apiKey, plainTextKey } = await apiKeys.create(newKey({ userId }))
    await apiKeys.rotate(apiKey.id, { gracePeriodSeconds: 0 })

    for (let use = 0; use < 2; use++) {
      expect(await apiKeys.verify(plainTextKey, { ip })).toEqual({
        valid: false,
        code: 'retired',
      })
      await apiKeys.flush()
    }

    const { events } = await apiKeys.events({ limit: 2 })
    expect(events).toMatchObject([
      {
        action: 'retired_secret_used',
        actorType: 'system',
        owner: { id: userId },
        address,
        before: null,
      },
      { action: 'rotated' },
    ])
    expect(await apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true, entries: 3 })
  })
})
