import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { basename, dirname, join, normalize } from 'node:path'
import { promisify } from 'node:util'

import { optionFields } from '../lib/read-options'
import { storageOptionNames } from '../models/storage-options'
import { warningCodes } from '../models/warnings'
import { createTestApiKeys } from './support/app'
import { databaseAway } from './support/database'
import { root } from './support/package'
import { pages, readPage, rowNames, sectionOf } from './support/readme'

/** The headings of a page, with the anchors that they have on GitHub. */
function headingsOf(page: string): { level: number; title: string; anchor: string }[] {
  const prose = readPage(page).replaceAll(/^```.*?^```$/gms, '')
  return [...prose.matchAll(/^(#+) (.*)$/gm)].map(([, marks = '', title = '']) => ({
    level: marks.length,
    title,
    anchor: title
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\- _]/gu, '')
      .replaceAll(' ', '-'),
  }))
}

/** The links of a page that stay in the repository, as path and anchor from its top. */
function linksOf(page: string): [path: string, anchor: string][] {
  return [...readPage(page).matchAll(/\]\((?!https?:)([^)#]*)#?([^)]*)\)/g)].map(
    ([, path = '', anchor = '']) => [
      path === '' ? page : normalize(join(dirname(page), path)),
      anchor,
    ],
  )
}

/** The text of a page from its title to its first table, block or heading. */
function openingOf(page: string): string {
  const [, opening = ''] = /^# [^\n]+\n\n(.*?)^(?:[|#]|```)/ms.exec(readPage(page)) ?? []
  return opening
}

const ofFolders = pages.filter((page) => page !== 'README.md')

describe('the pages', () => {
  it('are all README files of the repository', async () => {
    const folders = ['lib', 'models', 'migrations', 'spec', 'example-app']
    const found = await Promise.all(
      folders.map(async (folder) => {
        const names = await readdir(join(root, folder), { recursive: true })
        return names
          .map((name) => join(folder, name))
          .filter((name) => !/node_modules|adopters/.test(name))
      }),
    )

    expect(
      ['README.md', ...found.flat().filter((name) => name.endsWith('README.md'))].toSorted(),
    ).toEqual(pages.toSorted())
  })

  it.each(pages)('have no link that leads nowhere: %s', (page) => {
    const dead = linksOf(page).filter(
      ([path, anchor]) =>
        !existsSync(join(root, path)) ||
        (anchor !== '' &&
          path.endsWith('.md') &&
          !headingsOf(path).some((heading) => heading.anchor === anchor)),
    )

    expect(dead).toEqual([])
  })

  it.each(ofFolders)('open with the use of their folder, and with its one rule: %s', (page) => {
    expect(openingOf(page)).toMatch(/^[A-Z`][^]+[.?] (?:Its )?one rule:\s/i)
  })

  const ofSource = ofFolders.filter((page) => page !== 'spec/README.md')

  it.each(ofSource)('show their files before any other table: %s', (page) => {
    const [, header = ''] = /^\| (\w+)/m.exec(readPage(page)) ?? []

    expect(header).toBe('File')
  })

  it.each(ofSource)('name each file of their folder: %s', async (page) => {
    const names = await readdir(join(root, dirname(page)))
    const files = names.filter((name) => name.endsWith('.ts'))

    const linked = linksOf(page).map(([path]) => basename(path))
    const named = new Set([...linked, ...rowNames(readPage(page))])

    expect(files.filter((name) => !named.has(name))).toEqual([])
  })
})

describe('the first page', () => {
  it('has at most 200 lines', () => {
    expect(readPage('README.md').split('\n').length - 1).toBeLessThanOrEqual(200)
  })

  it('has a table of contents with every heading, in their order', () => {
    const [contents = ''] = /^\*\*Contents:\*\*.*?\n\n/ms.exec(readPage('README.md')) ?? []
    const entries = [...contents.matchAll(/\[([^\]]+)\]\(#([^)]+)\)/g)].map(
      ([, title, anchor]) => ({ level: 2, title, anchor }),
    )

    expect(entries).toEqual(headingsOf('README.md').slice(1))
  })

  it('leads to the page of each folder', () => {
    const linked = new Set(linksOf('README.md').map(([path]) => path))

    expect(ofFolders.filter((page) => !linked.has(page))).toEqual([])
  })

  it('has the endpoints of owners that the page on HTTP has', () => {
    const endpoint = /^(?:GET|POST|PUT|PATCH|DELETE) /
    const ofHttp = readPage('lib/http/README.md').split('`adminRouter()` ')[0] ?? ''

    expect(rowNames(sectionOf(readPage('README.md'), 'What owners can do')).slice(1)).toEqual(
      rowNames(ofHttp).filter((name) => endpoint.test(name)),
    )
  })

  it('has ten options', () => {
    const names = rowNames(sectionOf(readPage('README.md'), 'Options most apps set'))
    const known = [...Object.keys(optionFields), ...storageOptionNames] as string[]

    expect(new Set(names).size).toBe(10)
    expect(known).toEqual(expect.arrayContaining(names))
  })
})

describe('the page of the library', () => {
  const page = readPage('lib/README.md')

  it('has every warning, and nothing else', () => {
    expect(rowNames(sectionOf(page, 'Warnings'))).toEqual(warningCodes)
  })

  it('has all that createApiKeys returns, once, and the page of each', () => {
    const names = rowNames(sectionOf(page, 'What createApiKeys returns'))

    expect(names.toSorted()).toEqual(Object.keys(createTestApiKeys(databaseAway)).toSorted())
  })

  it('leads to pages that have the names', () => {
    const rows = sectionOf(page, 'What createApiKeys returns')
      .split('\n')
      .filter((row) => row.startsWith('| `'))
    const wrong = rows.flatMap((row) => {
      const [, target = ''] = /\]\(([^)#]+)/.exec(row) ?? []
      const text = readPage(join('lib', target))
      return rowNames(row).filter((name) => !new RegExp(`\\b${name}\\b`).test(text))
    })

    expect(rows.length).toBeGreaterThan(10)
    expect(wrong).toEqual([])
  })

  it('names the file of a rule, and a function that is in the file', () => {
    const rules = sectionOf(page, 'Where a rule is')
    const named = [...rules.matchAll(/`(\w+)` in \[[^\]]+\]\(([^)]+)\)/g)]
    const wrong = named.filter(
      ([, name = '', path = '']) => !readFileSync(join(root, 'lib', path), 'utf8').includes(name),
    )

    expect(named.length).toBeGreaterThan(2)
    expect(wrong).toEqual([])
  })

  it('has a glossary of at most 20 words', () => {
    const rows = [...sectionOf(page, 'Glossary').matchAll(/^\| (?!Word |---)/gm)]

    expect(rows.length).toBeGreaterThan(10)
    expect(rows.length).toBeLessThanOrEqual(20)
  })
})

describe('the page of the specs', () => {
  it('has a command that runs the specs of some files alone', async () => {
    expect(readPage('spec/README.md')).toContain('npm test -- spec/http spec/audit')
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      scripts: { test: string }
    }
    const [, ...options] = scripts.test.split(' ')
    const jest = [join(root, 'node_modules', '.bin', 'jest'), ...options]
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [...jest, 'spec/keys/new-id.spec.ts', '--listTests'],
      { cwd: root },
    )

    expect(stdout.match(/\S+\.spec\.ts$/gm)).toEqual([join(root, 'spec', 'keys', 'new-id.spec.ts')])
  })
})
