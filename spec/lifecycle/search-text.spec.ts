import { sources } from '../../lib'
import { vectors, type Vector } from '../support/imported-keys'
import { until } from '../support/until'
import { useWorld } from '../support/world'

const isSalted = ({ source, row }: Vector) =>
  source.salted !== undefined && (row.salt !== undefined || /^(?:pbkdf2|\$2b\$)/.test(row.stored))

/** A vector for each source that has keys without a salt. */
const plain = Object.values(vectors)
  .filter((vector) => !isSalted(vector))
  .filter(
    ({ source: { name } }, at, all) => all.findIndex(({ source }) => source.name === name) === at,
  )
const named = plain.map((vector): [string, Vector] => [vector.source.name, vector])

const { medusa } = vectors
if (!medusa) throw new Error('There is no vector of Medusa')
const imports = [...plain.map(({ source }) => source), sources.medusa()]
const { apiKeys, createKey, rows } = useWorld({ options: { imports } })

async function find(text: string, userId?: string) {
  const found = await apiKeys.list({ text, ...(userId !== undefined && { userId }) })
  return found.apiKeys.map(({ name }) => name)
}

beforeAll(async () => {
  await createKey({ name: 'Ours' })
  for (const { source, row } of plain) {
    await apiKeys.importKeys(source.name, [{ ...row, name: `From ${source.name}` }])
  }
  await apiKeys.importKeys('medusa', [{ ...medusa.row, name: 'From medusa' }])
})

describe('a search for an imported key', () => {
  it.each(named)('finds it by its plain text, and nothing else: %s', async (name, vector) => {
    const { key, nearMisses } = vector

    expect(await find(key)).toEqual([`From ${name}`])
    expect(await find(`from ${key}`)).toEqual([`From ${name}`])
    expect(await find(`other ${key}`)).toEqual([])
    expect(await find(key, 'bob')).toEqual([])
    for (const text of nearMisses) expect(await find(text)).toEqual([])
  })

  it.each(named)('finds it by the start that lists show: %s', async (name, { source, key }) => {
    const start = key.slice(0, 6)
    await rows(`UPDATE api_keys SET prefix = '@${name}_${start}' WHERE source = $1`, [source.name])

    for (const text of [start, `${start}...`, `${start}…`]) {
      expect(await find(text)).toContain(`From ${name}`)
    }
    expect(await find(`x${start.slice(1)}`)).not.toContain(`From ${name}`)
  })

  it('finds a key with a salt by its plain text from its first use on', async () => {
    expect(await find(medusa.key)).toEqual([])

    expect(await apiKeys.verify(medusa.key)).toMatchObject({ valid: true })

    await until(async () => (await find(medusa.key)).length > 0)
    expect(await find(medusa.key)).toEqual(['From medusa'])
  })

  it('revokes it by its plain text, with all others that the criteria name', async () => {
    const { source, key } = plain[0] ?? medusa

    expect(await apiKeys.revokeMany({ text: key })).toMatchObject({ keys: 1 })

    const [found] = (await apiKeys.list({ text: key })).apiKeys
    expect(found).toMatchObject({ name: `From ${source.name}`, status: 'REVOKED' })
  })

  it('leaves words of six letters what they are', async () => {
    await createKey({ name: 'Backup of graphs' })

    expect(await find('backup')).toEqual(['Backup of graphs'])
    expect(await find('backup graphs')).toEqual(['Backup of graphs'])
    expect(await find('backup nights')).toEqual([])
  })
})
