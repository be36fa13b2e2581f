import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { parser } from '@prometheus-io/lezer-promql'

import { createDatabase, type Database } from '../support/database'
import { exampleFolder, startExampleApp } from '../support/example-app'

interface Dashboard {
  panels: { title: string; targets: { expr: string; legendFormat: string }[] }[]
  templating: { list: { name: string; query: string }[] }
}

const dashboard = JSON.parse(
  readFileSync(join(exampleFolder, 'grafana-dashboard.json'), 'utf8'),
) as Dashboard

const queries = dashboard.panels.flatMap(({ title, targets }) =>
  targets.map(({ expr, legendFormat }) => ({ title, expr, legendFormat })),
)

let database: Database
let app: ChildProcess
let url: string
let text: string

beforeAll(async () => {
  database = await createDatabase('empty')
  ;({ app, url } = await startExampleApp(database))
  // The failure of a poll is the only series that a good database does not make.
  await fetch(`${url}/graphs`)
  await fetch(`${url}/graphs`, { headers: { Authorization: `Bearer ${await makeKey()}` } })
  await fetch(`${url}/graphs`, { headers: { Authorization: 'Bearer agpt_x' } })
  text = await (await fetch(`${url}/metrics`)).text()
})

afterAll(async () => {
  app.kill('SIGKILL')
  await database.drop()
})

function send(path: string, body: object, headers: Record<string, string> = {}) {
  return fetch(url + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
}

/** Creates a key as alice does, and returns its plain text. */
async function makeKey(): Promise<string> {
  const signedIn = await send('/sign-in', { username: 'alice', password: 'alice' })
  const cookie = String(signedIn.headers.get('set-cookie')?.split(';')[0])
  const body = { name: 'CI', permissions: ['READ_GRAPH'], environment: 'live' }
  const created = await send('/api-keys', body, { Cookie: cookie })
  return ((await created.json()) as { plainTextKey: string }).plainTextKey
}

/** Returns the labels and their values of each series of a metric. */
function seriesOf(metric: string): Record<string, string>[] {
  const lines = text.split('\n').filter((line) => new RegExp(`^${metric}[{ ]`).test(line))
  return lines.map((line) =>
    Object.fromEntries(
      [...line.matchAll(/(\w+)="([^"]*)"/g)].map(([, name = '', value = '']) => [name, value]),
    ),
  )
}

/** Puts in what Grafana puts in for its variables. */
function filledIn(query: string): string {
  return query.replaceAll('$__rate_interval', '1m').replaceAll('$prefix', '.*')
}

/** Returns the text of the nodes of a kind in a query. */
function nodesOf(query: string, kind: string): string[] {
  const found: string[] = []
  parser.parse(query).iterate({
    enter({ name, from, to }) {
      if (name === kind) found.push(query.slice(from, to))
    },
  })
  return found
}

describe('GET /metrics', () => {
  it('answers in the format of Prometheus, with counts by outcome', () => {
    const outcomes = seriesOf('express_api_keys_decisions_total').map((labels) => [
      labels.express_api_keys_outcome,
      labels.error_type,
    ])

    expect(outcomes).toEqual(
      expect.arrayContaining([
        ['accepted', undefined],
        ['refused', 'missing_credential'],
        ['refused', 'invalid_api_key'],
      ]),
    )
  })

  it('names no key and no owner', () => {
    expect(text).not.toMatch(/alice|[0-9a-f]{8}-[0-9a-f]{4}-/)
  })
})

describe('the dashboard', () => {
  it('has a query in every panel', () => {
    expect(queries.length).toBeGreaterThanOrEqual(dashboard.panels.length)
    expect(dashboard.panels.filter(({ targets }) => targets.length === 0)).toEqual([])
  })

  it.each(queries)('asks for what the app reports: $title, $expr', ({ expr, legendFormat }) => {
    const query = filledIn(expr)
    const metrics = nodesOf(query, 'VectorSelector')
    const legends = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, name = '']) => name)

    expect(nodesOf(query, '⚠')).toEqual([])
    expect(metrics.length).toBeGreaterThan(0)
    for (const selector of metrics) {
      const [metric = ''] = nodesOf(selector, 'Identifier')
      const series = seriesOf(metric)
      expect([metric, series.length > 0]).toEqual([metric, true])
      const labels = new Set(series.flatMap((each) => Object.keys(each)))
      for (const matcher of selector.matchAll(/(\w+)(=|=~)"([^"]*)"/g)) {
        const [, name = '', operator, value = ''] = matcher
        const matches = new RegExp(operator === '=' ? `^${value}$` : value)
        expect([name, series.some((each) => matches.test(each[name] ?? ''))]).toEqual([name, true])
      }
      const grouped = nodesOf(query, 'GroupingLabels').flatMap((list) => list.match(/\w+/g) ?? [])
      const isOfErrors = /error_type!=""/.test(selector)
      const unknown = [...grouped, ...legends].filter((name) => !labels.has(name))
      expect(isOfErrors ? [] : unknown).toEqual([])
    }
  })

  it('offers the prefixes of keys that there are', () => {
    const { query = '' } = dashboard.templating.list.find(({ name }) => name === 'prefix') ?? {}
    const [, metric = '', label = ''] = /^label_values\((\w+), (\w+)\)$/.exec(query) ?? []

    expect(seriesOf(metric).map((labels) => labels[label])).toEqual(['agpt'])
  })
})
