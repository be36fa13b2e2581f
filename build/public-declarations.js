const { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs')
const { dirname, join } = require('node:path')

/*
 * Keeps of the declarations in dist only what the types of the package's exports are made of. The other declarations describe the
 * inside of the library. With them, each compilation of an app without `skipLibCheck` would check all types of Valibot.
 *
 * It reads the declarations as the compiler prints them: each statement begins at the start of a line, after its comment, and ends with
 * a semicolon or a brace.
 */

const dist = join(__dirname, '..', 'dist')
const entry = join(dist, 'lib', 'index.d.ts')

/** The parsed files by their paths. */
const files = new Map()
/** The statements that are kept. */
const kept = new Set()

function fileOf(path) {
  let file = files.get(path)
  if (!file) {
    file = parse(readFileSync(path, 'utf8'), path)
    files.set(path, file)
  }
  return file
}

/** Splits a file into statements, with their comments, and lists these by the names that they declare. */
function parse(text, path) {
  const statements = []
  let current = ''
  for (const line of text.split('\n')) {
    if (/^[a-z/]/.test(line) && /[;}]$/.test(withoutComments(current).trim())) {
      statements.push(current)
      current = ''
    }
    current += `${line}\n`
  }
  const all = [...statements, current].map((code) => statementOf(code, path))
  const declarations = new Map()
  for (const statement of all) {
    for (const name of statement.names) {
      declarations.set(name, [...(declarations.get(name) ?? []), statement])
    }
  }
  return { all, declarations }
}

function withoutComments(text) {
  return text.replaceAll(/\/\*.*?\*\//gs, '')
}

function statementOf(text, path) {
  const code = withoutComments(text).trim()
  const [, from] = /^(?:import|export)\b[^;]*? from '([^']+)';\s*$/.exec(code) ?? []
  if (from !== undefined || /^import \w+ = require\(/.test(code)) {
    return { text, path, code, names: namesIn(code).map(({ local }) => local), from }
  }
  const [, name] =
    /^(?:export )?(?:declare )?(?:abstract )?(?:const|function|class|interface|type) ([\w$]+)/.exec(
      code,
    ) ?? []
  const more = code.startsWith('export declare const')
    ? [...code.matchAll(/, ([\w$]+): typeof /g)].map(([, other]) => other)
    : []
  return { text, path, code, names: name === undefined ? [] : [name, ...more] }
}

/** Returns the names that an import or an export from elsewhere binds: `of` is the name there, `*` for all. */
function namesIn(code) {
  const [, alone] = /^import (?:type )?([\w$]+)(?: =|,| from)/.exec(code) ?? []
  const [, all] = /\* as ([\w$]+)/.exec(code) ?? []
  const [, list = ''] = /\{([^}]*)\}/.exec(code) ?? []
  const listed = list
    .split(',')
    .map((each) => each.trim().replace(/^type /, ''))
    .filter((each) => each !== '')
    .map((each) => {
      const [of, local = of] = each.split(' as ')
      return { of, local }
    })
  return [
    ...(alone === undefined ? [] : [{ of: 'default', local: alone }]),
    ...(all === undefined ? [] : [{ of: '*', local: all }]),
    ...listed,
  ]
}

function resolve(from, path) {
  if (!from?.startsWith('.')) return undefined
  const place = join(dirname(path), from)
  return [`${place}.d.ts`, join(place, 'index.d.ts')].find((each) => existsSync(each))
}

/** Keeps what declares a name of a file; all of the file for `*`. */
function keepName(path, name) {
  const { all, declarations } = fileOf(path)
  for (const statement of name === '*' ? all : (declarations.get(name) ?? [])) {
    if (statement.from === undefined) keep(statement)
    else keepBinding(statement, name)
  }
}

/** Keeps an import, or an export from elsewhere, of a name. */
function keepBinding(statement, name) {
  statement.used ??= new Set()
  if (statement.used.has(name)) return
  statement.used.add(name)
  kept.add(statement)
  const target = resolve(statement.from, statement.path)
  for (const { of, local } of namesIn(statement.code)) {
    if (target && (name === '*' || local === name)) keepName(target, of)
  }
}

/** Keeps a statement, and all that its text names. A word that only looks like a name keeps too much, which does no harm. */
function keep(statement) {
  if (kept.has(statement)) return
  kept.add(statement)
  const { code, path } = statement
  for (const [, from, name] of code.matchAll(/import\(["']([^"']+)["']\)\.([\w$]+)/g)) {
    const target = resolve(from, path)
    if (target) keepName(target, name)
  }
  const { declarations } = fileOf(path)
  for (const [word] of code.matchAll(/[\w$]+/g)) if (declarations.has(word)) keepName(path, word)
}

/** Returns the text of a kept statement. An import leaves out the names that are not used. */
function textOf(statement) {
  const { text, code, used, from } = statement
  if (!used || from === undefined || used.has('*')) return text
  const isUnused = namesIn(code).filter(({ local }) => !used.has(local))
  return isUnused.reduce(
    (shorter, { of, local }) =>
      shorter.replace(
        new RegExp(
          `(?<=[{,] )(?:type )?${of === local ? local : `${of} as ${local}`}(?:, | (?=\\}))`,
        ),
        '',
      ),
    text,
  )
}

for (const statement of fileOf(entry).all) {
  if (statement.from === undefined) keep(statement)
  else for (const { local } of namesIn(statement.code)) keepBinding(statement, local)
}
// Types that are declared for all of an app belong to a file that is kept.
for (const { all } of files.values()) {
  for (const each of all) if (/^declare (global|module)/.test(each.code)) keep(each)
}

for (const name of readdirSync(dist, { recursive: true })) {
  if (!name.endsWith('.d.ts')) continue
  const path = join(dist, name)
  const texts =
    files
      .get(path)
      ?.all.filter((each) => kept.has(each))
      .map(textOf) ?? []
  if (texts.length > 0) writeFileSync(path, texts.join(''))
  else rmSync(path)
}
