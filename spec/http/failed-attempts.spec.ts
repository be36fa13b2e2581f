import type { Test } from 'supertest'

import type { Options } from '../support/app'
import { forgeKey } from '../support/keys'
import { useWorld } from '../support/world'

const { createProcess } = useWorld()

/** Makes an instance whose requests come from an address. */
function createStrict(options: Options) {
  const { apiKeys, createKey, http } = createProcess(options, (app, { requirePermission }) => {
    app.set('trust proxy', true)
    app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => {
      res.json([])
    })
  })
  const from = (address: string, key: string) =>
    http.with(key).get('/graphs').set('X-Forwarded-For', address)
  return { apiKeys, createKey, from }
}

/** Fails as often as is allowed. */
async function exhaust(from: (address: string, key: string) => Test, address: string) {
  for (let time = 0; time < 5; time++) {
    expect((await from(address, 'agpt_nonsense')).status).toBe(401)
  }
}

describe('failed attempts', () => {
  it('are refused with 429 above the maximum per minute and address, but valid keys pass', async () => {
    const { createKey, from } = createStrict({ maxFailedAttemptsPerMinute: 5 })
    const warm = await createKey()
    const cold = await createKey()
    await from('203.0.113.7', warm.plainTextKey)

    await exhaust(from, '203.0.113.7')

    const refused = await from('203.0.113.7', 'agpt_nonsense')
    expect(refused.status).toBe(429)
    expect(refused.headers['retry-after']).toMatch(/^(59|60)$/)
    expect((await from('203.0.113.8', 'agpt_nonsense')).status).toBe(401)
    expect((await from('203.0.113.7', warm.plainTextKey)).status).toBe(200)
    expect((await from('203.0.113.7', cold.plainTextKey)).status).toBe(200)
  })

  it('count for the whole network of an IPv6 address', async () => {
    const { from } = createStrict({ maxFailedAttemptsPerMinute: 5 })

    await exhaust(from, '2001:db8::1')

    expect((await from('2001:db8:0:0:ffff::2', 'agpt_nonsense')).status).toBe(429)
    expect((await from('2001:db8:0:1::1', 'agpt_nonsense')).status).toBe(401)
    expect((await from('::ffff:203.0.113.9', 'agpt_nonsense')).status).toBe(401)
  })

  it('leave ten look-ups a second to unknown keys', async () => {
    const { from } = createStrict({ maxFailedAttemptsPerMinute: 5 })
    await exhaust(from, '203.0.113.7')
    await from('203.0.113.7', 'agpt_nonsense')

    const answers = await Promise.all(
      Array.from({ length: 30 }, () => from('203.0.113.7', forgeKey())),
    )

    const statuses = answers.map(({ status }) => status)
    expect(new Set(statuses)).toEqual(new Set([401, 503]))
    expect(answers.find(({ status }) => status === 503)?.body.code).toBe('too_many_lookups')
    expect((await from('203.0.113.8', forgeKey())).status).toBe(401)
  })

  it('prevent no look-up of keys that were made with a secret', async () => {
    const { createKey, from } = createStrict({
      maxFailedAttemptsPerMinute: 5,
      secrets: ['correct horse battery staple, 32 bytes'],
      acceptUnkeyed: true,
    })
    const minted = await Promise.all(Array.from({ length: 30 }, () => createKey()))
    await exhaust(from, '203.0.113.7')
    await from('203.0.113.7', 'agpt_nonsense')

    const answers = await Promise.all(
      minted.map(({ plainTextKey }) => from('203.0.113.7', plainTextKey)),
    )

    expect(answers.filter(({ status }) => status !== 200)).toEqual([])
  })

  it('may be unlimited', async () => {
    const { from } = createStrict({ maxFailedAttemptsPerMinute: Infinity })
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => from('203.0.113.7', 'agpt_nonsense')),
    )

    expect(answers.filter(({ status }) => status !== 401)).toEqual([])
  })

  it('are reported by verify as well, if the address is known', async () => {
    const apiKeys = createProcess({ maxFailedAttemptsPerMinute: 1 }).apiKeys
    const ip = '203.0.113.7'

    expect(await apiKeys.verify('nonsense', { ip })).toEqual({ valid: false, code: 'malformed' })
    expect(await apiKeys.verify('nonsense', { ip })).toEqual({
      valid: false,
      code: 'too_many_attempts',
      retryAfterSeconds: 60,
    })
    expect(await apiKeys.verify('nonsense')).toEqual({ valid: false, code: 'malformed' })
  })
})
