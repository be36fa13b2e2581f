import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

import { scanners } from '../../lib/leaks/scanner-rules'
import { installAdopter, type Adopter } from '../support/adopter'
import { forgeKey } from '../support/keys'

const key = forgeKey('acme')

/** The places of a key in which an expression with boundaries misses it, or might. */
const places: Record<string, string> = {
  'line-start': `${key}\n`,
  assignment: `API_KEY=${key}\n`,
  yaml: `key: ${key}\n`,
  quotes: `const key = '${key}'\n`,
  json: `{"key":"${key}"}\n`,
  url: `curl https://${key}@api.example.com/graphs\n`,
  query: `https://api.example.com/graphs?key=${key}&page=2\n`,
  'percent-encoded': `https://api.example.com/%20${key}%0A\n`,
  'percent-encoded-assignment': `key%3D${key}%26\n`,
  'line-end-in-json': `{"log":"the key is\\n${key}\\nand works"}\n`,
  'tab-in-json': `{"log":"\\t${key}\\t"}\n`,
  colour: `\u001B[32m${key}\u001B[0m\n`,
  'colour-in-json': `"\\u001b[32m${key}\\u001b[0m"\n`,
  'letters-before': `xyz${key}\n`,
  'base64-before': `QWxhZGRpbjpvcGVu${key}\n`,
  'underscore-before': `MY_${key}\n`,
  'underscore-after': `${key}_old\n`,
  'word-around': `const my_${key}_old = 1\n`,
  markdown: `**${key}**, \`${key}\`.\n`,
  'no-line-end': key,
  'long-line': `${'x '.repeat(20_000)}${key}${' x'.repeat(20_000)}\n`,
  live: `'${forgeKey('acme_live')}'\n`,
  test: `\\n${forgeKey('acme_test')}\n`,
  'imported-with-all-parts': `"v1:lk-0123456789abcdef.Ab_-"\n`,
  'imported-after-letters': `\\nlk-0123456789abcdef\n`,
  'imported-sanctum': `7|old_${'A1b2'.repeat(10)}01234567\n`,
  'imported-prefixed': `mycorp_BRTRKFsL_51FwqftsmMDHHbJAMEXXHCgG\n`,
}

/** Texts that nearly are keys. */
const nearMisses: Record<string, string> = {
  short: `${key.slice(0, -1)}\n`,
  'two-lines': `${key.slice(0, 30)}\n${key.slice(30)}\n`,
  masked: `${key.slice(0, 11)}...\n`,
  dash: `${key.replace('_', '-')}\n`,
  'dash-within': `${key.slice(0, 20)}-${key.slice(21)}\n`,
  capitals: `${key.replace('acme', 'ACME')}\n`,
  'other-prefix': `${key.replace('acme', 'acne')}\n`,
  'other-environment': `acme_staging_${key.slice(5, -5)}\n`,
  marker: 'acme_acme_acme_acme_acme_acme_acme_acme_acme_acme_acme_acme_acme_acme\n',
  'imported-short': 'lk-0123456789abcde\n',
  'imported-capitals': 'lk-0123456789ABCDEF\n',
  'imported-other': 'mycorp-BRTRKFsL-51FwqftsmMDHHbJAMEXXHCgG\n',
  'imported-base58': 'mycorp_BRTRKF0L_51FwqftsmMDHHbJAMEXXHCgG\n',
  'imported-without-start': `${'0123456789abcdef'.repeat(4)}\n`,
}

const libraries = ['/usr/lib', '/lib'].flatMap((folder) => {
  const ofMachine = join(folder, 'x86_64-linux-gnu')
  return existsSync(ofMachine) ? readdirSync(ofMachine) : []
})
/** True if a scanner, or its engine, is installed here. The others come from npm. */
const isInstalled = {
  gitleaks: true,
  'git-secrets': spawnSync('which', ['git-secrets']).status === 0,
  github: libraries.includes('libhs.so.5'),
  secretlint: true,
}

let adopter: Adopter

beforeAll(async () => {
  adopter = await installAdopter('scanners')
  const folder = join(adopter.folder, 'texts')
  await mkdir(folder)
  for (const [name, text] of Object.entries({ ...places, ...nearMisses })) {
    await writeFile(join(folder, `${name}.txt`), text)
  }
})

afterAll(() => adopter.remove())

describe('the rules for scanners', () => {
  it.each(scanners.filter((scanner) => isInstalled[scanner]))(
    'find a key in every place, and nothing that nearly is one: %s',
    async (scanner) => {
      const rules = `${scanner}.rules`
      await adopter.run('npx', 'express-api-keys', 'scanners', '--for', scanner, '--output', rules)

      const found = await adopter.run('node', 'scan.cjs', scanner, rules, 'texts')

      const missed = Object.keys(places).map((name) => `${name}.txt`)
      expect(JSON.parse(found)).toEqual(missed.toSorted())
      expect(await readFile(join(adopter.folder, rules), 'utf8')).not.toContain(key.slice(5))
    },
  )
})
