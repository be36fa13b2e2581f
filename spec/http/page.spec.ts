import { createApiKeys } from '../../lib'
import { ApiKeysError, challengeOf, type ErrorCode } from '../../lib/errors'
import { filterNames } from '../../lib/keys/criteria'
import { refusals } from '../../lib/refusals'
import { createTestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { readPage } from '../support/readme'

interface Layer {
  /** The stack of a router of Express 4 and 5. */
  route?: { path: string; stack: { method?: string }[] }
}

const apiKeys = createTestApiKeys(databaseAway)

/** The routes of a router in the notation of the page, for example `GET /:id`. */
function routesOf(router: unknown): string[] {
  const { stack } = router as { stack: Layer[] }
  return stack.flatMap(({ route }) =>
    (route?.stack ?? [])
      // The handler without a method answers all other methods.
      .filter(({ method }) => method !== undefined)
      .map(({ method }) => `${method?.toUpperCase()} ${route?.path.replace(/:\w+/, ':id')}`),
  )
}

/** Returns the rows of the table with this title in its first column, each as a list of cells. */
function rowsOf(title: string): string[][] {
  const table = readPage('lib/http/README.md')
    .split('\n\n')
    .find((text) => text.startsWith(`| \`${title}\``))
  if (table === undefined) throw new Error(`The page has no table of ${title}`)

  return table
    .trim()
    .split('\n')
    .slice(2)
    .map((row) => row.split(/(?<!\\)\|/).map((cell) => cell.trim()))
    .map(([, ...cells]) => cells)
}

function codeOf(cell: string | undefined): string {
  return /^`(.*)`$/.exec(cell ?? '')?.[1] ?? ''
}

const ownerRows = rowsOf('router()').map(([cell]) => codeOf(cell))
const adminRows = rowsOf('adminRouter()').map(([cell]) => codeOf(cell))

describe('the page on HTTP', () => {
  it('has every endpoint of owners', () => {
    expect(ownerRows.toSorted()).toEqual(routesOf(apiKeys.router()).toSorted())
  })

  it('has every endpoint of administrators, and all endpoints of owners are among them', () => {
    expect([...new Set([...ownerRows, ...adminRows])].toSorted()).toEqual(
      routesOf(apiKeys.adminRouter()).toSorted(),
    )
  })

  it('has every criterion of a revocation of many keys', () => {
    const [, what] = rowsOf('adminRouter()').find(([cell]) => cell === '`POST /revoke-many`') ?? []

    expect(filterNames.filter((name) => !what?.includes(`\`${name}\``))).toEqual([])
  })

  it('has every member of a record', () => {
    const { openApi } = createApiKeys({
      sequelize: databaseAway.connect(),
      environments: { live: 'agpt' },
      acceptedEnvironments: ['live'],
      permissions: ['READ_GRAPH'],
      currentUser: () => null,
      resources: { graph: true },
      maxIdleDays: 1,
    })
    const { schemas } = openApi().components as { schemas: { ApiKey: { properties: object } } }
    const [, members = ''] = /A record is `\{([^}]*)\}`/.exec(readPage('lib/http/README.md')) ?? []

    expect(members.trim().split(/,\s+/)).toEqual(Object.keys(schemas.ApiKey.properties))
  })

  it('has every refusal once, with its status and its challenge', () => {
    const rows = rowsOf('code').map(([code, status, challenge]) =>
      [codeOf(code), status, challenge].join(' | '),
    )
    const expected = (Object.keys(refusals) as ErrorCode[]).map((code) =>
      [code, new ApiKeysError(code).status, challengeCell(code)].join(' | '),
    )

    expect(rows.toSorted()).toEqual(expected.toSorted())
  })
})

function challengeCell(code: ErrorCode): string {
  const challenge = challengeOf(code)
  if (challenge === undefined) return ''
  if (challenge === null) return 'without an error'

  const scope = code === 'missing_permission' ? ', scope="…"' : ''
  return `\`error="${challenge}"${scope}\``
}
