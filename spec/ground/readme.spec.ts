import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { readmeBlocks, readmeSection } from '../support/readme'

const adopters = join(__dirname, 'adopters')

function adoptersFile(path: string) {
  return readFileSync(join(adopters, path), 'utf8')
}

/** All packages that adopters pin, as `name version`. */
function pinned() {
  return readdirSync(adopters, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('package.json'))
    .flatMap((path) => {
      const { dependencies } = JSON.parse(adoptersFile(path)) as {
        dependencies: Record<string, string>
      }
      return Object.entries(dependencies).map(([name, version]) => `${name} ${version}`)
    })
}

describe('the README, on loggers and tracers', () => {
  it('shows what adopters here have', () => {
    const [loggers = '', sentry = ''] = readmeBlocks('ts').filter((block) =>
      /redactionPaths|Sentry/.test(block),
    )

    const lines = [...loggers.matchAll(/^app\.use\([^\n]*\)(?= |$)/gm)].map(([line]) => line)
    const [integrations = ''] = /integrations: .*\]/.exec(sentry) ?? []

    expect(lines).toHaveLength(2)
    for (const line of lines) expect(adoptersFile('express/loggers.cjs')).toContain(line)
    expect(integrations).not.toBe('')
    expect(adoptersFile('sentry/app.cjs')).toContain(integrations)
  })

  it('names the versions that were tried', () => {
    const rows = readmeSection('Loggers and tracers').matchAll(/^\| `(.+?)` (\d[\d.]*) /gm)
    const named = [...rows].map(([, name, version]) => `${name} ${version}`)

    expect(named.length).toBeGreaterThan(6)
    expect(pinned()).toEqual(expect.arrayContaining(named))
  })
})
