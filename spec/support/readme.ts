import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import type { Consumer } from './package'

/** The pages of the documentation. The first page opens the package. */
export const pages = [
  'README.md',
  'example-app/README.md',
  'example-app/recipes/README.md',
  'migrations/README.md',
  'lib/README.md',
  'lib/audit/README.md',
  'lib/cli/README.md',
  'lib/console/README.md',
  'lib/database/README.md',
  'lib/freshness/README.md',
  'lib/http/README.md',
  'lib/importing/README.md',
  'lib/leaks/README.md',
  'lib/limits/README.md',
  'lib/metrics/README.md',
  'lib/openapi/README.md',
  'lib/tokens/README.md',
  'lib/usage/README.md',
  'lib/verification/README.md',
  'lib/keys/README.md',
  'lib/lifecycle/README.md',
  'spec/README.md',
  'spec/bench/README.md',
]

/** Returns the text of a page. */
export function readPage(page: string): string {
  return readFileSync(join(__dirname, '..', '..', page), 'utf8')
}

const readme = pages.map(readPage).join('\n')

/** Returns the code blocks of a language on all pages, in order. */
export function readmeBlocks(language: string): string[] {
  return blocksOf(readme, language)
}

export function blocksOf(text: string, language: string): string[] {
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .filter(([, name]) => name === language)
    .map(([, , code]) => String(code))
}

/** Returns the text below a heading of any page, up to the next heading. */
export function readmeSection(title: string): string {
  return sectionOf(readme, title)
}

/** Returns the text below a heading of a text, up to the next heading. */
export function sectionOf(text: string, title: string): string {
  const section = text.split(/^#+ /m).find((part) => part.startsWith(`${title}\n`))
  if (section === undefined) throw new Error(`There is no section ${title}`)

  return section
}

/** Returns the names that stand as code in the first column of the tables of a text. */
export function rowNames(text: string): string[] {
  return [...text.matchAll(/^\| (`[^|]*) \|/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => String(name)),
  )
}

/** Returns the first example with a port that the system chooses. It then prints the port. */
export function firstExample(): string {
  const [example = ''] = readmeBlocks('ts')
  const listening = example.replace(
    'app.listen(3000)',
    'const server = app.listen(0, () => console.log("listening", server.address()))',
  )
  if (listening === example)
    throw new Error('The first example of the README does not listen on port 3000')

  return listening
}

/** Rewrites an example as a CommonJS program. */
export function asCommonJs(example: string): string {
  const body = example
    .replaceAll(/^import (\w+) from '(.+)'$/gm, "const $1 = require('$2')")
    .replaceAll(/^import (\{.+\}) from '(.+)'$/gm, "const $1 = require('$2')")

  return `void (async () => {\n${body}\n})()`
}

/** Runs an example in a consumer until it listens. */
export async function runExample(consumer: Consumer, file: string, databaseUrl: string) {
  const child = consumer.startNode([file], databaseUrl)
  const exited = once(child, 'exit')
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => {
    errors += String(chunk)
  })

  for await (const line of createInterface(child.stdout)) {
    // A long address is printed over several lines.
    const [, port] = /port: (\d+)/.exec(line) ?? []
    if (port === undefined) continue

    return {
      url: `http://127.0.0.1:${port}`,
      async stop() {
        child.kill()
        await exited
      },
    }
  }
  throw new Error(`The example ended before it listened: ${errors}`)
}
