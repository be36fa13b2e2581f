import { randomBytes } from 'node:crypto'

import { sources, type ImportSource } from '../../lib'
import { createTestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { vectors, withOther } from '../support/imported-keys'
import { until } from '../support/until'
import { useWorld, useWorldForEach, type Process } from '../support/world'

/** Key of better-auth that was never imported. */
function madeUp() {
  const letters = [...randomBytes(64)].map((byte) => String.fromCharCode(97 + (byte % 26)))
  return `acme_${letters.join('')}`
}

/** A text with the shape of AutoGPT's keys, and a locator that no key has. */
function stranger() {
  return withOther(`agpt_${randomBytes(33).toString('base64url').slice(0, 43)}`, 6)
}

/** The statements of a process that read keys or salts for a request. */
function asked({ statements }: Process) {
  return (
    statements.lookUps().length +
    statements.all.filter((sql) => sql.includes('SELECT recipe, salt')).length
  )
}

/** Resolves once a process knows all imported keys, so that other texts cost no query. */
async function knowsAll(process: Process, makeUp: () => string) {
  await until(async () => {
    const before = asked(process)
    await process.apiKeys.verify(makeUp())
    return asked(process) === before
  })
}

/** Returns a vector by its name. */
function vectorOf(name: string) {
  const vector = vectors[name]
  if (!vector) throw new Error(`There is no vector ${name}`)
  return vector
}

const betterAuth = vectorOf('better-auth')

afterAll(() => databaseAway.drop())

describe('a text that looks like an imported key', () => {
  const world = useWorld({ options: { imports: [betterAuth.source] } })

  it('costs no query while the feed is live', async () => {
    await world.apiKeys.importKeys('better-auth', [betterAuth.row])
    await world.apiKeys.verify(betterAuth.key)
    await knowsAll(world, madeUp)
    const before = asked(world)

    const texts = [...betterAuth.nearMisses, ...Array.from({ length: 200 }, madeUp)]
    const verdicts = await Promise.all(texts.map((text) => world.apiKeys.verify(text)))

    expect(new Set(verdicts.map((verdict) => verdict.valid))).toEqual(new Set([false]))
    expect(asked(world)).toBe(before)
    expect(await world.apiKeys.verify(betterAuth.key)).toMatchObject({ valid: true })
  })

  it('counts as a failed attempt of its address', async () => {
    await knowsAll(world, madeUp)
    const answers = []
    for (let attempt = 0; attempt < 61; attempt++) {
      answers.push(await world.apiKeys.verify(madeUp(), { ip: '203.0.113.9' }))
    }

    expect(answers.at(-2)).toEqual({ valid: false, code: 'malformed' })
    expect(answers.at(-1)).toMatchObject({ code: 'too_many_attempts' })
  })

  it('becomes a key in a process that knows it as none, once another process imports it', async () => {
    const other = world.createProcess({ imports: [betterAuth.source] })
    const key = madeUp()
    await other.apiKeys.verify(betterAuth.key)
    await knowsAll(other, madeUp)
    expect(await other.apiKeys.verify(key)).toMatchObject({ valid: false })

    const stored = Buffer.from(betterAuth.source.digest.of(key), 'latin1').toString('base64url')
    await world.apiKeys.importKeys('better-auth', [{ ...betterAuth.row, stored }])

    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: true })
    await until(async () => (await other.apiKeys.verify(key)).valid)
  })

  it('is refused with 503 while the database is away, if it may be a key', async () => {
    const away = createTestApiKeys(databaseAway, { imports: [betterAuth.source] })

    await expect(away.verify(madeUp())).rejects.toMatchObject({
      code: 'database_unavailable',
    })
  })
})

describe('an imported key', () => {
  const world = useWorld({ options: { imports: [betterAuth.source] } })
  const { key } = betterAuth

  beforeAll(async () => {
    await world.apiKeys.importKeys('better-auth', [betterAuth.row])
  })

  async function idOf() {
    const { apiKeys } = await world.apiKeys.list({ userId: 'alice' })
    return String(apiKeys[0]?.id)
  }

  it('is verified from memory once it was used', async () => {
    await world.apiKeys.verify(key)
    const before = asked(world)

    for (let use = 0; use < 20; use++) {
      expect(await world.apiKeys.verify(key)).toMatchObject({ valid: true })
    }
    expect(asked(world)).toBe(before)
  })

  it('is refused while it is suspended, works while it is transferred, and is used like any key', async () => {
    const id = await idOf()
    await world.apiKeys.suspend(id)
    expect(await world.apiKeys.verify(key)).toMatchObject({ code: 'suspended' })
    await world.apiKeys.reactivate(id)
    await world.apiKeys.transfer(id, { type: 'user', id: 'bob' })
    expect(await world.apiKeys.verify(key)).toMatchObject({
      valid: true,
      apiKey: { userId: 'bob' },
    })
    await world.apiKeys.transfer(id, { type: 'user', id: 'alice' })
    await world.apiKeys.flush()

    expect(await world.apiKeys.get(id)).toMatchObject({ lastUsedAt: expect.any(Date) })
    expect((await world.apiKeys.usage(id)).totals.accepted).toBeGreaterThan(0)
  })

  it('is found by the search for its owner, and counted by its source', async () => {
    const health = await world.apiKeys.health({ livingKeys: true })

    expect(health.imports).toEqual([{ source: 'better-auth', keys: 1 }])
    expect(health.livingKeys).toMatchObject([{ keys: 1 }])
    expect(health.refusedKeys).toEqual([])
  })

  it('works on for its grace period once it is rotated, which is the way out of its source', async () => {
    const id = await idOf()
    const { apiKey, plainTextKey } = await world.apiKeys.rotate(id, { gracePeriodSeconds: 3_600 })

    expect(plainTextKey).toMatch(/^agpt_/)
    expect(apiKey).toMatchObject({ source: 'better-auth', previousSecret: { prefix: '' } })
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: true })
    expect(await world.apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    expect((await world.apiKeys.health({ livingKeys: true })).imports).toMatchObject([{ keys: 1 }])

    await world.apiKeys.endRotation(id)
    expect(await world.apiKeys.verify(key)).toMatchObject({ code: 'retired' })
    expect(await world.apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    expect((await world.apiKeys.health({ livingKeys: true })).imports).toMatchObject([{ keys: 0 }])
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })
})

describe('a key of Sanctum, which counts without the id before it', () => {
  const { source, key, row } = vectorOf('sanctum')
  const world = useWorld({ options: { imports: [source] } })
  const [, token = ''] = key.split('|')
  const texts = [key, `18|${token}`, token]
  const decide = () => Promise.all(texts.map((text) => world.apiKeys.verify(text)))

  beforeAll(async () => {
    await world.apiKeys.importKeys(source.name, [row])
    for (let use = 0; use < 3; use++) await decide()
  })

  it('is accepted with each id, from memory', async () => {
    const before = asked(world)

    expect(await decide()).toMatchObject([{ valid: true }, { valid: true }, { valid: true }])
    expect(asked(world)).toBe(before)
  })

  it('is refused with each id as soon as it is suspended, and once it is revoked', async () => {
    const { apiKeys } = await world.apiKeys.list({ userId: 'alice' })
    const id = String(apiKeys[0]?.id)
    await world.apiKeys.suspend(id)
    const suspended = await decide()
    await world.apiKeys.reactivate(id)
    const again = await decide()
    await world.apiKeys.revoke(id)

    const codes = (code: string) => texts.map(() => ({ valid: false, code }))
    expect(suspended).toMatchObject(codes('suspended'))
    expect(again).toMatchObject(texts.map(() => ({ valid: true })))
    expect(await decide()).toMatchObject(codes('revoked'))
    expect(await decide()).toMatchObject(codes('revoked'))
  })
})

describe('a source', () => {
  const world = useWorldForEach({ options: { imports: [betterAuth.source] } })

  it('has its keys refused and counted while it is missing from the options', async () => {
    await world.apiKeys.importKeys('better-auth', [betterAuth.row])
    const without = world.createProcess().apiKeys
    const another = world.createProcess({ imports: [sources.knox()] }).apiKeys

    for (const apiKeys of [without, another]) {
      expect(await apiKeys.verify(betterAuth.key)).toMatchObject({ valid: false })
      expect((await apiKeys.list()).apiKeys).toEqual([])
    }
    await world.apiKeys.close()
    const { refusedKeys } = await without.health({ livingKeys: true })
    expect(refusedKeys).toEqual([{ keyPrefix: '@better-auth', environment: null, keys: 1 }])
  })

  it('may accept the same texts as another: each key is found where it was imported', async () => {
    const twin = { ...betterAuth.source, name: 'twin' }
    const { apiKeys } = world.createProcess({ imports: [twin, betterAuth.source] })
    const other = madeUp()
    const stored = Buffer.from(twin.digest.of(other), 'latin1').toString('base64url')
    await apiKeys.importKeys('better-auth', [betterAuth.row])
    await apiKeys.importKeys('twin', [{ ...betterAuth.row, stored, userId: 'bob' }])

    expect(await apiKeys.verify(betterAuth.key)).toMatchObject({ apiKey: { userId: 'alice' } })
    expect(await apiKeys.verify(other)).toMatchObject({ apiKey: { userId: 'bob' } })

    // The same key in both is one key for each, and the first source answers.
    await apiKeys.importKeys('twin', [{ ...betterAuth.row, userId: 'carol' }])
    expect((await apiKeys.list()).apiKeys).toHaveLength(3)
    expect(await apiKeys.verify(betterAuth.key)).toMatchObject({ valid: true })
  })

  it('keeps its keys when the secrets of the app are rotated', async () => {
    const [old, next] = [randomBytes(32), randomBytes(32)]
    const imports = [betterAuth.source, vectorOf('autogpt').source]
    const before = world.createProcess({ imports, secrets: [old] }).apiKeys
    await before.importKeys('better-auth', [betterAuth.row])
    await before.importKeys('autogpt', [vectorOf('autogpt').row])

    const after = world.createProcess({ imports, secrets: [next, old] }).apiKeys
    const gone = world.createProcess({ imports, secrets: [next] }).apiKeys

    expect(await after.verify(betterAuth.key)).toMatchObject({ valid: true })
    expect(await after.verify(vectorOf('autogpt').key)).toMatchObject({ valid: true })
    expect(await after.importKeys('better-auth', [betterAuth.row])).toMatchObject({ known: 1 })
    expect(await gone.verify(betterAuth.key)).toMatchObject({ valid: false })
    expect(await before.health({ livingKeys: true })).toMatchObject({
      livingKeys: expect.arrayContaining([expect.objectContaining({ secret: 0 })]),
    })
  })
})

describe('a salted key', () => {
  const world = useWorldForEach({ options: { imports: [vectorOf('autogpt').source] } })
  const { key, row, source } = vectorOf('autogpt')

  /** A source whose derivations are counted. */
  function counted() {
    const running = { now: 0, most: 0, all: 0 }
    const { salted } = source
    if (!salted) throw new Error('The source has no salts')
    const slow: ImportSource = {
      ...source,
      salted: {
        read: salted.read,
        async derive(...args) {
          running.all++
          running.now++
          running.most = Math.max(running.most, running.now)
          const value = await salted.derive(...args)
          running.now--
          return value
        },
      },
    }
    return { slow, running }
  }

  it('gets a hash like all others at its first use, with an entry, and its salt goes', async () => {
    const upgraded: unknown[] = []
    world.apiKeys.on('upgraded', (event) => upgraded.push(event))
    await world.apiKeys.importKeys('autogpt', [row])
    const [before] = await world.rows('SELECT id, hash FROM api_keys')

    await world.apiKeys.verify(key, { ip: '203.0.113.7' })
    await until(() => upgraded.length > 0)

    const [after] = await world.rows('SELECT id, hash FROM api_keys')
    expect(after?.id).toBe(before?.id)
    expect(after?.hash).not.toBe(before?.hash)
    expect(await world.rows('SELECT FROM api_key_salts')).toEqual([])
    const { events } = await world.apiKeys.events({ apiKeyId: String(after?.id) })
    expect(events).toMatchObject([
      { action: 'upgraded', actorType: 'system', address: '203.0.113.7' },
      { action: 'imported' },
    ])
    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: true })
    expect(await world.apiKeys.importKeys('autogpt', [row])).toMatchObject({ known: 1 })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('is derived once for all requests that come with it at once, and no more once it is upgraded', async () => {
    const { slow, running } = counted()
    const { apiKeys } = world.createProcess({ imports: [slow] })
    const upgraded: unknown[] = []
    apiKeys.on('upgraded', (event) => upgraded.push(event))
    await apiKeys.importKeys('autogpt', [row])

    const verdicts = await Promise.all(Array.from({ length: 30 }, () => apiKeys.verify(key)))
    await until(() => upgraded.length > 0)
    await apiKeys.verify(key)

    expect(verdicts.every(({ valid }) => valid)).toBe(true)
    expect(running.all).toBe(1)
  })

  it('cannot be used to keep the threads busy', async () => {
    const { slow, running } = counted()
    const { apiKeys } = world.createProcess({ imports: [slow] })
    await apiKeys.importKeys('autogpt', [row])
    const guess = () => `${key.slice(0, 8)}${randomBytes(40).toString('base64url').slice(0, 40)}`
    const send = (ip: string) => apiKeys.verify(guess(), { ip }).catch((error: unknown) => error)

    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, index) => send(`203.0.113.${index % 5}`)),
    )

    expect(running.most).toBeLessThanOrEqual(2)
    expect(running.all).toBeLessThan(60)
    expect(answers.some((answer) => answer instanceof Error)).toBe(true)
    expect(await apiKeys.verify(key)).toMatchObject({ valid: true })
  })

  it('is not derived at all if no key has its locator', async () => {
    const { slow, running } = counted()
    const process = world.createProcess({ imports: [slow] })
    await process.apiKeys.importKeys('autogpt', [row])
    await process.apiKeys.verify(key)
    await knowsAll(process, stranger)
    const before = running.all

    await Promise.all(Array.from({ length: 50 }, () => process.apiKeys.verify(stranger())))

    expect(running.all).toBe(before)
  })

  it('works in a rotation that came before its first use', async () => {
    await world.apiKeys.importKeys('autogpt', [row])
    const { apiKeys } = await world.apiKeys.list()
    const { plainTextKey } = await world.apiKeys.rotate(String(apiKeys[0]?.id))

    expect(await world.apiKeys.verify(key)).toMatchObject({ valid: true })
    expect(await world.apiKeys.verify(plainTextKey)).toMatchObject({ valid: true })
    expect(await world.apiKeys.verifyAuditTrail()).toMatchObject({ isIntact: true })
  })

  it('is accepted by a role that cannot upgrade it', async () => {
    const errors: unknown[] = []
    await world.apiKeys.importKeys('autogpt', [row])
    const [{ database } = {}] = await world.rows<{ database: string }>(
      'SELECT current_database() AS database',
    )
    await world.sequelize.query(`CREATE ROLE "${database}"`)
    await world.sequelize.query(
      `GRANT SELECT ON ALL TABLES IN SCHEMA public TO "${database}"; GRANT INSERT, UPDATE ON api_key_bounds TO "${database}"`,
    )
    const sequelize = world.database.connect({
      dialectOptions: { options: `-c role=${database}` },
    })
    const reader = world.createProcess({ imports: [source], sequelize }).apiKeys
    reader.on('error', (event) => errors.push(event))

    expect(await reader.verify(key)).toMatchObject({ valid: true })
    await until(() => errors.length > 0)
    expect(errors).toContainEqual(expect.objectContaining({ notice: 'upgraded' }))
    expect(await reader.verify(key)).toMatchObject({ valid: true })
  })
})
