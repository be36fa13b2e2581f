import type { ImportRow } from '../../lib'
import { legacySource, legacyKey } from '../support/imported-keys'
import { useWorldForEach } from '../support/world'

const newRow = (): ImportRow => legacyKey().row
const revoked = (row: ImportRow): ImportRow => ({ ...row, status: 'REVOKED' })
const suspended = (row: ImportRow): ImportRow => ({ ...row, status: 'SUSPENDED' })

/** Rows that fill a batch, and count for no owner. */
const fill = () => Array.from({ length: 1_000 }, () => revoked(newRow()))

describe('a dry run of an import', () => {
  const world = useWorldForEach({ options: { imports: [legacySource], maxKeysPerOwner: 2 } })
  const importKeys = (rows: readonly ImportRow[], dryRun: boolean) =>
    world.apiKeys.importKeys('legacy', rows, { enforce: ['maxKeysPerOwner'], dryRun })

  const [one, two, three, four] = [newRow(), newRow(), newRow(), newRow()]

  it.each<[string, { before?: ImportRow[]; rows: ImportRow[]; expected: object }]>([
    [
      'refuses keys beyond the maximum of an owner whose keys are a thousand rows apart',
      {
        rows: [one, ...fill(), two, three, ...fill(), four],
        expected: { imported: 2_002, refused: [{ row: 1_002 }, { row: 2_003 }] },
      },
    ],
    [
      'counts a key once whose rows are a thousand rows apart',
      {
        rows: [one, ...fill(), one, two, ...fill(), two],
        expected: { imported: 2_002, known: 2, refused: [] },
      },
    ],
    [
      'makes room for a key by a later row that revokes another, for rows of the next thousand',
      {
        rows: [one, two, ...fill(), revoked(one), three, ...fill(), four],
        expected: { imported: 2_003, changed: 1, refused: [{ row: 1_003 }] },
      },
    ],
    [
      'makes room for a key by a row that revokes a key of before, for rows of the next thousand',
      {
        before: [one, two],
        rows: [revoked(one), three, ...fill(), four],
        expected: { imported: 1_001, known: 0, changed: 1, refused: [{ row: 1 }] },
      },
    ],
    [
      'changes a key once for each row that lets it do less',
      {
        before: [one],
        rows: [suspended(one), ...fill(), suspended(one), ...fill(), one, revoked(one)],
        expected: { imported: 2_000, known: 2, changed: 2, refused: [] },
      },
    ],
  ])('%s, as the import does', async (_, { before = [], rows, expected }) => {
    await importKeys(before, false)

    const dry = await importKeys(rows, true)
    const real = await importKeys(rows, false)

    expect(real).toMatchObject(expected)
    expect(dry).toEqual(real)
  })
})
