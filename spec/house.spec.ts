import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/**
 * The floors of the house, from the top down. An import goes from a floor to a floor below it, and between rooms of one
 * floor nothing is imported.
 */
const floors = [
  ['lib/index.ts'],
  ['lib/create-api-keys.ts'],
  ['lib/api.ts'],
  ['lib/http'],
  ['lib/lifecycle'],
  ['lib/verification'],
  ['lib/audit', 'lib/usage', 'lib/limits', 'lib/freshness'],
  ['lib/read-options.ts'],
  ['lib/options.ts'],
  ['lib/keys'],
  ['migrations'],
  ['lib/database'],
  ['models'],
  ['lib/errors.ts'],
]

/** What only some floors may import. */
const reserved = [
  {
    imported: /^sequelize$|^pg$|^models\/(?!warnings|option-checks)|^migrations/,
    rooms: /^lib\/http$/,
  },
  {
    imported: /^(express|passport(-.*)?)$/,
    rooms: /^(lib\/(?!http$|index\.ts$|create)|models|migrations)/,
  },
]

const files = execFileSync('git', [
  'ls-files',
  '--cached',
  '--others',
  '--exclude-standard',
  'lib',
  'models',
  'migrations',
])
  .toString()
  .split('\n')
  .filter((file) => file.endsWith('.ts') && existsSync(file))

describe('the floors of the house', () => {
  it('hold every file', () => {
    expect(files.filter((file) => floorOf(file) === -1)).toEqual([])
  })

  it('import only from floors below them', () => {
    const upward = importsBetweenRooms()
      .filter(({ from, to }) => floorOf(to) <= floorOf(from))
      .map(({ from, to }) => `${from} imports ${to}`)

    expect(upward).toEqual([])
  })

  it('keep Express above, and the database below the floor of HTTP', () => {
    const wrong = files.flatMap((file) =>
      importsOf(file)
        .filter((imported) =>
          reserved.some(
            ({ imported: name, rooms }) => name.test(imported) && rooms.test(roomOf(file)),
          ),
        )
        .map((imported) => `${file} imports ${imported}`),
    )

    expect(wrong).toEqual([])
  })
})

function importsBetweenRooms() {
  return files
    .flatMap((from) => importsOf(from).map((to) => ({ from, to })))
    .filter(({ from, to }) => /^(lib|models|migrations)\//.test(to) && roomOf(from) !== roomOf(to))
}

/** Returns what a file imports: files of ours by their paths, packages by their names. */
function importsOf(file: string): string[] {
  const source = readFileSync(file, 'utf8')
  return [...source.matchAll(/ from '([^']+)'/g)].map(([, name = '']) => {
    if (!name.startsWith('.')) return name
    const path = join(dirname(file), name)
    return existsSync(`${path}.ts`) ? `${path}.ts` : `${path}/index.ts`
  })
}

function roomOf(file: string): string {
  return floors.flat().find((room) => file === room || file.startsWith(`${room}/`)) ?? ''
}

function floorOf(file: string): number {
  return floors.findIndex((rooms) => rooms.includes(roomOf(file)))
}
