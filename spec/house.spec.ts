import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

import { codeLinesOf, functionsOf, sourceFiles } from './support/source'

/**
 * The floors of the house, from the top down. An import goes from a floor to a floor below it, and between rooms of one
 * floor nothing is imported.
 */
const floors = [
  ['lib/cli'],
  ['lib/index.ts'],
  ['lib/create-api-keys.ts'],
  ['lib/api.ts', 'lib/instances.ts'],
  ['lib/console', 'lib/leaks', 'lib/tokens'],
  ['lib/http'],
  ['lib/openapi', 'lib/metrics'],
  ['lib/lifecycle'],
  ['lib/verification'],
  ['lib/audit', 'lib/usage', 'lib/limits', 'lib/freshness'],
  ['lib/read-options.ts'],
  ['lib/options.ts'],
  ['lib/importing'],
  ['lib/keys'],
  ['migrations'],
  ['lib/database'],
  ['models'],
  ['lib/errors.ts'],
  ['lib/refusals.ts'],
]

/** The modules that only some floors may import. */
const reserved = [
  {
    imported: /^sequelize$|^pg$|^models\/(?!warnings|option-checks)|^migrations/,
    rooms: /^lib\/(http|console|leaks|tokens)$/,
  },
  {
    imported: /^(express|passport(-.*)?)$/,
    rooms: /^(lib\/(?!http$|console$|leaks$|tokens$|index\.ts$|create)|models|migrations)/,
  },
]

/** The capabilities that stand apart from the core of the library: their rooms, and their files in other rooms. */
const wings = {
  'the page of one key': [
    'lib/console/pages/exposure.tsx',
    'lib/console/pages/key-details.tsx',
    'lib/console/pages/key-limits.tsx',
    'lib/console/pages/key-props.ts',
    'lib/console/pages/key-restrictions.tsx',
    'lib/console/pages/key-usage.tsx',
    'lib/console/pages/key.tsx',
    'lib/console/pages/trail.tsx',
  ],
  'the forms of one key': [
    'lib/console/pages/confirm.tsx',
    'lib/console/pages/fields.tsx',
    'lib/console/pages/key-form.tsx',
    'lib/console/pages/question.tsx',
    'lib/console/pages/reveal.tsx',
  ],
  'the frame and the list': [
    'lib/console/pages/chart.tsx',
    'lib/console/pages/key-table.tsx',
    'lib/console/pages/layout.tsx',
    'lib/console/pages/list-filters.tsx',
    'lib/console/pages/list.tsx',
    'lib/console/pages/parts.tsx',
    'lib/console/pages/refused.tsx',
  ],
  'looks and forms of pages': [
    'lib/console/accent.ts',
    'lib/console/app-fields.ts',
    'lib/console/assets.ts',
    'lib/console/bindings.ts',
    'lib/console/expiry.ts',
    'lib/console/faults.ts',
    'lib/console/form.ts',
    'lib/console/format.ts',
    'lib/console/key-state.ts',
    'lib/console/options.ts',
    'lib/console/page.ts',
    'lib/console/request-name.ts',
  ],
  'what pages show and do': [
    'lib/console/calls.ts',
    'lib/console/console.ts',
    'lib/console/key-form-views.tsx',
    'lib/console/key-views.tsx',
    'lib/console/list-view.tsx',
    'lib/console/reveal.tsx',
    'lib/console/router.tsx',
    'lib/console/secret-views.tsx',
  ],
  'the command line': [
    'lib/cli/bin.ts',
    'lib/cli/command.ts',
    'lib/cli/exit-codes.ts',
    'lib/cli/instance.ts',
    'lib/cli/interruption.ts',
    'lib/cli/key-views.ts',
    'lib/cli/keys.ts',
    'lib/cli/plain-text-key.ts',
    'lib/cli/program.ts',
    'lib/cli/run.ts',
    'lib/cli/terminal.ts',
  ],
  'what the command line imports and reports': [
    'lib/cli/audit.ts',
    'lib/cli/erase.ts',
    'lib/cli/import.ts',
    'lib/cli/import-rows.ts',
    'lib/cli/reports.ts',
    'lib/cli/scanners.ts',
    'lib/cli/upkeep.ts',
  ],
  'the doctor of the command line': [
    'lib/cli/doctor.ts',
    'lib/cli/doctor-app.ts',
    'lib/cli/doctor-server.ts',
    'lib/cli/doctor-tables.ts',
  ],
  'the texts of the pages': [
    'lib/console/texts/de.ts',
    'lib/console/texts/en.ts',
    'lib/console/texts/exposure.ts',
    'lib/console/texts/faults-de.ts',
    'lib/console/texts/faults-en.ts',
    'lib/console/texts/texts.ts',
  ],
  'the texts of the pages of administrators': [
    'lib/console/texts/admin-de.ts',
    'lib/console/texts/admin-en.ts',
  ],
  'the pages on which administrators change keys': [
    'lib/console/pages/admin/key-actions.tsx',
    'lib/console/pages/admin/key-filters.tsx',
    'lib/console/pages/admin/owner-parts.tsx',
    'lib/console/pages/admin/owner-questions.tsx',
    'lib/console/pages/admin/owner.tsx',
    'lib/console/pages/admin/owners.tsx',
    'lib/console/pages/admin/unused.tsx',
  ],
  'the pages that administrators read': [
    'lib/console/pages/admin/events.tsx',
    'lib/console/pages/admin/health.tsx',
    'lib/console/pages/admin/trail.tsx',
    'lib/console/pages/admin/usage.tsx',
    'lib/console/pages/admin/verification.tsx',
  ],
  'what pages of administrators show and do': [
    'lib/console/admin',
    'lib/http/admin-check.ts',
    'lib/keys/owner-names.ts',
    'lib/lifecycle/overviews.ts',
  ],
  audit: [
    'lib/audit/entry.ts',
    'lib/audit/list-entries.ts',
    'lib/audit/retired-uses.ts',
    'lib/audit/trail.ts',
  ],
  'erasing of owners': [
    'lib/audit/check-erasures.ts',
    'lib/audit/erase.ts',
    'lib/lifecycle/erase-owner.ts',
    'lib/usage/erase.ts',
  ],
  'verification of the audit trail': [
    'lib/audit/check-blocks.ts',
    'lib/audit/check-entries.ts',
    'lib/audit/check-seals.ts',
    'lib/audit/check-tables.ts',
    'lib/audit/faults.ts',
    'lib/audit/read-beside.ts',
    'lib/audit/read-trail.ts',
    'lib/audit/verify.ts',
  ],
  'entries beside their keys': [
    'lib/audit/agreeing-states.ts',
    'lib/audit/check-keys.ts',
    'lib/audit/story.ts',
  ],
  'seals of the audit trail': [
    'lib/audit/chain.ts',
    'lib/audit/check-origins.ts',
    'lib/audit/head.ts',
    'lib/audit/origins.ts',
    'lib/audit/own-entries.ts',
    'lib/audit/prune.ts',
    'lib/audit/seal.ts',
    'lib/audit/sealer.ts',
    'lib/audit/signing.ts',
  ],
  usage: ['lib/usage', 'lib/keys/usage-period.ts', 'lib/database/writer.ts'],
  limits: [
    'lib/limits',
    'lib/keys/limits.ts',
    'lib/http/rate-limits.ts',
    'lib/verification/failed-attempts.ts',
  ],
  permissions: [
    'lib/http/demand.ts',
    'lib/keys/grantable.ts',
    'lib/keys/permission-options.ts',
    'lib/keys/permissions.ts',
    'lib/verification/owner-permissions.ts',
  ],
  'documents of OpenAPI': [
    'lib/http/document-route.ts',
    'lib/openapi/document.ts',
    'lib/openapi/guards.ts',
    'lib/openapi/json-schema.ts',
    'lib/openapi/options.ts',
    'lib/openapi/parameters.ts',
    'lib/openapi/read-options.ts',
    'lib/openapi/refusals.ts',
  ],
  'the routes in documents of OpenAPI': [
    'lib/openapi/admin-operations.ts',
    'lib/openapi/answers.ts',
    'lib/openapi/key-operations.ts',
    'lib/openapi/operation.ts',
    'lib/openapi/operations.ts',
    'lib/openapi/token-operations.ts',
  ],
  metrics: ['lib/metrics', 'lib/database/observed.ts', 'lib/verification/outcomes.ts'],
  'rules for scanners': ['lib/leaks/scanned-forms.ts', 'lib/leaks/scanner-rules.ts'],
  'exposed keys': [
    'lib/leaks/call-limit.ts',
    'lib/leaks/github.ts',
    'lib/leaks/gitlab.ts',
    'lib/leaks/leak-router.ts',
    'lib/leaks/options.ts',
    'lib/leaks/reporter.ts',
    'lib/leaks/signatures.ts',
    'lib/http/plain-http.ts',
    'lib/http/transport.ts',
    'lib/lifecycle/exposure.ts',
  ],
  'token endpoints, and MCP': [
    'lib/tokens',
    'lib/http/auth-info.ts',
    'lib/lifecycle/revoke-secret.ts',
  ],
  'notices of expiry': ['lib/lifecycle/expiry-notices.ts'],
  'what other systems store': [
    'lib/importing/digests.ts',
    'lib/importing/salted.ts',
    'lib/importing/framework-sources.ts',
    'lib/importing/node-sources.ts',
    'lib/importing/plain-sources.ts',
    'lib/importing/platform-sources.ts',
    'lib/importing/rows.ts',
    'lib/importing/source.ts',
    'lib/importing/source-options.ts',
    'lib/importing/sources.ts',
  ],
  'the option imports': ['lib/importing/pattern.ts', 'lib/importing/read-imports.ts'],
  'the import of keys': [
    'lib/importing/imported-keys.ts',
    'lib/importing/report.ts',
    'lib/keys/imported-prefix.ts',
    'lib/keys/imported-state.ts',
  ],
  'the import of many keys': [
    'lib/lifecycle/import-batch.ts',
    'lib/lifecycle/import-changes.ts',
    'lib/lifecycle/import-commands.ts',
    'lib/lifecycle/import-drafts.ts',
    'lib/lifecycle/import-dry-run.ts',
    'lib/lifecycle/import-keys.ts',
    'lib/lifecycle/import-known.ts',
    'lib/lifecycle/import-options.ts',
    'lib/lifecycle/import-owners.ts',
  ],
  'imported keys in requests': [
    'lib/http/imported-tokens.ts',
    'lib/verification/examine-imported.ts',
    'lib/verification/imports.ts',
    'lib/verification/known-imports.ts',
    'lib/verification/living-imports.ts',
    'lib/verification/number-set.ts',
    'lib/verification/salted-keys.ts',
    'lib/verification/upgrade.ts',
  ],
  'requests that are carried out once': [
    'lib/lifecycle/idempotency.ts',
    'lib/http/idempotency-key.ts',
  ],
}

const files = sourceFiles('lib', 'models', 'migrations')

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

// A line of code is neither blank nor comment.
describe('the size of the house', () => {
  it('is at most 250 lines of code in each file', () => {
    const long = files.filter((file) => codeLinesOf(file) > 250)

    expect(long.map((file) => `${file}: ${codeLinesOf(file)}`)).toEqual([])
  })

  it('is at most 80 lines of code in each function', () => {
    const long = files.flatMap(functionsOf).filter(({ codeLines }) => codeLines > 80)

    expect(long.map(({ place, codeLines }) => `${place}: ${codeLines}`)).toEqual([])
  })

  it.each(Object.entries(wings))('is at most 1,000 lines of code for %s', (_, wing) => {
    expect(wing.filter((path) => !existsSync(path))).toEqual([])
    expect(sum(within(wing))).toBeLessThanOrEqual(1_000)
  })

  it('is at most 13,600 lines of code for the core', () => {
    const apart = new Set(within(Object.values(wings).flat()))

    expect(sum(within(['lib']).filter((file) => !apart.has(file)))).toBeLessThanOrEqual(13_600)
  })
})

function within(paths: readonly string[]): string[] {
  return files.filter((file) => paths.some((path) => file === path || file.startsWith(`${path}/`)))
}

function sum(list: readonly string[]): number {
  return list.reduce((total, file) => total + codeLinesOf(file), 0)
}

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
    const found = [`${path}.ts`, `${path}.tsx`].find((file) => existsSync(file))
    return found ?? `${path}/index.ts`
  })
}

function roomOf(file: string): string {
  return floors.flat().find((room) => file === room || file.startsWith(`${room}/`)) ?? ''
}

function floorOf(file: string): number {
  return floors.findIndex((rooms) => rooms.includes(roomOf(file)))
}
