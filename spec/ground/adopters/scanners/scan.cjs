const { spawnSync } = require('node:child_process')
const { readdirSync, readFileSync } = require('node:fs')
const { basename, join } = require('node:path')

/* Prints the names of the files in which a scanner finds a key: node scan.cjs SCANNER RULES FOLDER. */
const [scanner, rulesFile, folder] = process.argv.slice(2)
const rules = readFileSync(rulesFile, 'utf8')
const names = readdirSync(folder)
const textOf = (name) => readFileSync(join(folder, name), 'utf8')

const scan = {
  /** The reader of TOML, the keywords and the engine of gitleaks. The engine is a port of Go's package regexp. */
  gitleaks() {
    const { RE2JS } = require('re2js')
    const parsed = require('smol-toml').parse(rules).rules
    const ids = new Set(parsed.map(({ id }) => id))
    if (ids.size !== parsed.length) throw new Error('two rules have the same id')
    const all = parsed.map(({ regex, keywords }) => ({ pattern: RE2JS.compile(regex), keywords }))
    return names.filter((name) => {
      const text = textOf(name)
      const lower = text.toLowerCase()
      return all.some(
        ({ pattern, keywords }) =>
          keywords.some((word) => lower.includes(word.toLowerCase())) &&
          pattern.matcher(text).find(),
      )
    })
  },

  'git-secrets'() {
    run('git', 'init', '--quiet')
    run('sh', rulesFile)
    const { stderr, status } = spawnSync('git', ['secrets', '--scan', '-r', folder])
    if (status !== 0 && status !== 1) throw new Error(String(stderr))
    const found = String(stderr).matchAll(new RegExp(`${folder}/([^:]+):\\d+:`, 'g'))
    const inFolder = [...found].map(([, name]) => name)

    // Each file alone, as the hook that runs before a commit has it.
    const alone = names.filter(
      (name) => spawnSync('git', ['secrets', '--scan', join(folder, name)]).status === 1,
    )
    if (String([...new Set(inFolder)].toSorted()) !== String(alone.toSorted()))
      throw new Error(String(stderr))
    return alone
  },

  /** The engine of GitHub's custom patterns. A pattern is the text before, the secret, and the text after it. */
  github() {
    const matches = createHyperscan()
    const patterns = rules.split('\n\n').map((block) => {
      const [, secret, before, after] =
        /^Pattern name: {3}\w[\w-]*\nSecret format: {2}(.+)\nBefore secret: *(.*)\nAfter secret: {3}(.+)\n?$/.exec(
          block,
        )
      return `(?:${before})(?:${secret})(?:${after})`
    })
    return names.filter((name) => patterns.some((pattern) => matches(pattern, textOf(name))))
  },

  secretlint() {
    const { stdout, stderr } = spawnSync('npx', [
      'secretlint',
      '--secretlintrc',
      rulesFile,
      '--format',
      'json',
      `${folder}/*`,
    ])
    if (String(stdout) === '') throw new Error(String(stderr))
    return JSON.parse(String(stdout))
      .filter(({ messages }) => messages.length > 0)
      .map(({ filePath }) => basename(filePath))
  },
}

function run(...command) {
  const { status, stderr } = spawnSync(command[0], command.slice(1))
  if (status !== 0) throw new Error(`${command.join(' ')}: ${String(stderr)}`)
}

function createHyperscan() {
  const koffi = require('koffi')
  const hyperscan = koffi.load('libhs.so.5')
  koffi.proto('int OnMatch(uint32_t id, uint64_t from, uint64_t to, uint32_t flags, void *context)')
  const compile = hyperscan.func(
    'int hs_compile(const char *expression, uint32_t flags, uint32_t mode, void *platform, _Out_ void **database, _Out_ void **error)',
  )
  const allocate = hyperscan.func('int hs_alloc_scratch(void *database, _Inout_ void **scratch)')
  const search = hyperscan.func(
    'int hs_scan(void *database, const char *text, uint32_t length, uint32_t flags, void *scratch, OnMatch *onMatch, void *context)',
  )
  return function matches(pattern, text) {
    const database = [null]
    if (compile(pattern, 0, 1, null, database, [null]) !== 0) throw new Error(pattern)
    const scratch = [null]
    allocate(database[0], scratch)
    let count = 0
    const onMatch = () => (count++, 0)
    search(database[0], text, Buffer.byteLength(text), 0, scratch[0], onMatch, null)
    return count > 0
  }
}

console.log(JSON.stringify(scan[scanner]().toSorted()))
