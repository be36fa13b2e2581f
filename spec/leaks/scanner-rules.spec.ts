import { createApiKeys, digests, sources, type ImportSource, type Scanner } from '../../lib'
import { scanners } from '../../lib/leaks/scanner-rules'
import { databaseAway } from '../support/database'
import { forgeKey } from '../support/keys'

const permissions = ['READ_GRAPH'] as const

function create(imports: readonly ImportSource[] = []) {
  return createApiKeys({
    sequelize: databaseAway.connect(),
    environments: { live: { prefix: 'acme_live', formerPrefixes: ['acme'] }, test: 'acme_test' },
    acceptedEnvironments: ['live'],
    permissions,
    imports,
  })
}

const source = (accepts: RegExp, name = 'legacy') => ({ name, accepts, digest: digests.sha256.hex })

/** Returns the patterns of the rules for imported keys. */
function importedPatterns(imported: ImportSource): string[] {
  const rules = create([imported]).scannerRules('gitleaks')
  return [...rules.matchAll(/imported_key"\n.*\nregex = '''(.*)'''/g)].map(
    ([, pattern = '']) => pattern,
  )
}

describe('scannerRules', () => {
  it('has a rule of gitleaks for each prefix, former ones too', () => {
    expect(create().scannerRules('gitleaks')).toBe(`[[rules]]
id = "acme_live_api_key"
description = "API key (acme_live_)"
regex = '''acme_live_[0-9A-Za-z]{51}'''
keywords = ["acme_live_"]

[[rules]]
id = "acme_api_key"
description = "API key (acme_)"
regex = '''acme_[0-9A-Za-z]{51}'''
keywords = ["acme_"]

[[rules]]
id = "acme_test_api_key"
description = "API key (acme_test_)"
regex = '''acme_test_[0-9A-Za-z]{51}'''
keywords = ["acme_test_"]
`)
  })

  it('has commands of git-secrets, whose patterns match the whole word', () => {
    const word = '[0-9A-Za-z_]*'
    const [first] = create().scannerRules('git-secrets').split('\n')

    expect(first).toBe(`git secrets --add '${word}acme_live_[0-9A-Za-z]{51}${word}'`)
  })

  it('has the fields of custom patterns of GitHub, with nothing before the secret', () => {
    const [first] = create().scannerRules('github').split('\n\n')

    expect(first).toBe(`Pattern name:   acme_live_api_key
Secret format:  acme_live_[0-9A-Za-z]{51}
Before secret:
After secret:   \\z|[^0-9A-Za-z]`)
  })

  it('has a configuration of secretlint', () => {
    expect(JSON.parse(create().scannerRules('secretlint'))).toEqual({
      rules: [
        {
          id: '@secretlint/secretlint-rule-pattern',
          options: {
            patterns: ['acme_live', 'acme', 'acme_test'].map((name) => ({
              name: `${name}_api_key`,
              patterns: [`/${name}_[0-9A-Za-z]{51}/`],
            })),
          },
        },
      ],
    })
  })

  it.each(['acme_live', 'acme', 'acme_test'])(
    'finds the keys with the prefix %s alone',
    (prefix) => {
      const patterns = [
        ...create()
          .scannerRules('gitleaks')
          .matchAll(/regex = '''(.*)'''/g),
      ]
      const matching = patterns.filter(([, pattern = '']) =>
        new RegExp(pattern).test(`x${forgeKey(prefix)}`),
      )

      expect(matching.map(([, pattern]) => pattern)).toEqual([`${prefix}_[0-9A-Za-z]{51}`])
    },
  )

  it.each(['GitLeaks', 'toString', '', undefined, null, ['gitleaks']])(
    'names the scanners if it is asked for %j',
    (scanner) => {
      expect(() => create().scannerRules(scanner as Scanner)).toThrow(
        'scannerRules: the scanner must be one of gitleaks, git-secrets, github, secretlint, got',
      )
    },
  )
})

describe('the rule for imported keys', () => {
  it.each<[ImportSource, string]>([
    [sources.autogpt(), 'agpt_[0-9A-Z_a-z-]{43}'],
    [sources.sanctum({ prefix: 'old_' }), 'old_[0-9A-Za-z]{40}[0-9a-f]{8}'],
    [sources.betterAuth({ prefix: 'acme-' }), 'acme-[A-Za-z]{64}'],
    [source(/^lk_[0-9a-f]{40}$/), 'lk_[0-9a-f]{40}'],
    [source(/^key\.\d{8}$/), 'key\\.[0-9]{8}'],
    [source(/^lk_(?:a|b(c))\w{2,4}?$/), 'lk_(?:a|b(?:c))[0-9A-Z_a-z]{2,4}'],
    [source(/^key-\x41\u0042[\x43D]{9}$/), 'key-AB[CD]{9}'],
    [source(/^(?:v[0-9]:)?(?:old_)?key_[A-F]{9}$/), 'old_key_[A-F]{9}'],
    [source(/^(?:v[0-9]:)?(?:a-)?key_[A-F]{9}$/), 'key_[A-F]{9}'],
    [source(/^key_[a-f]{9}$/u), 'key_[a-f]{9}'],
    [source(/^lk_?[a-f]{9}$/), ''],
    [source(/^key_{2}[a-f]{9}$/), 'key_{2}[a-f]{9}'],
  ])('has the fixed start of %j', (imported, pattern) => {
    expect(importedPatterns(imported)).toEqual(pattern === '' ? [] : [pattern])
  })

  it.each<[string, ImportSource]>([
    ['begin in any way', sources.knox()],
    ['begin with a prefix or without', source(/^(?:lk_a|lk_b)[0-9a-f]{40}$/)],
    ['have a short start', source(/^k_[0-9a-f]{40}$/)],
    ['begin in both cases', source(/^key_[0-9a-f]{40}$/i)],
    ['have signs that engines write in different ways', source(/^key_[^a-z]{40}$/)],
    ['have a caret', source(/^key_\^[a-z]{40}$/)],
  ])('is missing if the keys %s', (_, imported) => {
    expect(importedPatterns(imported)).toEqual([])
  })

  it('is beside the rule for a prefix that has the name of the source', () => {
    const rules = create([source(/^acme-[a-z]{20}$/, 'acme')]).scannerRules('gitleaks')

    const ids = [...rules.matchAll(/id = "(.*)"/g)].map(([, id]) => id)
    expect(ids).toEqual([
      'acme_live_api_key',
      'acme_api_key',
      'acme_test_api_key',
      'acme_imported_key',
    ])
  })

  it.each(scanners)('is among the rules for %s', (scanner) => {
    expect(create([sources.autogpt()]).scannerRules(scanner)).toContain('agpt_[0-9A-Z_a-z-]{43}')
  })
})
