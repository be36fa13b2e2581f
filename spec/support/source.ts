import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

import { parseSync } from '@swc/core'

/** A function in a source file. */
export interface SourceFunction {
  /** The file, the line and, if it has one, the name: `lib/keys/secret.ts:58 createSecretFormat`. */
  place: string
  codeLines: number
}

/** Returns the paths of the source files in folders, new ones included. */
export function sourceFiles(...folders: string[]): string[] {
  const list = ['ls-files', '--cached', '--others', '--exclude-standard', ...folders]
  return execFileSync('git', list, { encoding: 'utf8' })
    .split('\n')
    .filter((file) => /\.tsx?$/.test(file) && existsSync(file))
}

/** Counts the lines of a file that are neither blank nor comment. */
export function codeLinesOf(file: string): number {
  return countCode(readFileSync(file, 'utf8'))
}

function countCode(source: string): number {
  return source.split('\n').filter((line) => !/^\s*(\/\/|\/?\*|$)/.test(line)).length
}

const kinds = new Set([
  'FunctionDeclaration',
  'FunctionExpression',
  'ArrowFunctionExpression',
  'MethodProperty',
  'ClassMethod',
  'GetterProperty',
])

/** Returns all functions of a file. The lines of a function include those of the functions in it. */
export function functionsOf(file: string): SourceFunction[] {
  const bytes = readFileSync(file)
  const program = parseSync(bytes.toString(), { syntax: 'typescript', tsx: file.endsWith('.tsx') })
  // The parser counts bytes, and does not start again at zero for the next file.
  const start = program.span.end - bytes.length
  const found: SourceFunction[] = []

  function visit(node: unknown) {
    if (Array.isArray(node)) node.forEach(visit)
    if (typeof node !== 'object' || node === null || Array.isArray(node)) return
    if ('type' in node && 'span' in node && kinds.has(String(node.type))) {
      const span = node.span as { start: number; end: number }
      const source = bytes.subarray(span.start - start, span.end - start).toString()
      const line = bytes
        .subarray(0, span.start - start)
        .toString()
        .split('\n').length
      const name = /^(?:async )?function\*? (\w+)/.exec(source)?.[1] ?? ''
      found.push({ place: `${file}:${line} ${name}`.trim(), codeLines: countCode(source) })
    }
    Object.values(node).forEach(visit)
  }

  visit(program.body)
  return found
}
