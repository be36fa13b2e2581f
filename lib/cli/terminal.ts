import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { styleText } from 'node:util'

import type * as progress from 'cli-progress'
import stringWidth from 'string-width'

import { unprintable } from '../keys/unprintable'
import { CliError, exitCodes } from './exit-codes'

const { stdin, stdout, stderr } = process

type Style = Parameters<typeof styleText>[0]

/** Styles a text for a terminal that has colours. `NO_COLOR` switches them off. */
export function paint(style: Style, text: string): string {
  return stdout.isTTY && stdout.hasColors() ? styleText(style, text) : text
}

/** Prints a line of a result. Resolves once the reader keeps up. */
export async function print(text: string) {
  if (!stdout.write(`${text}\n`)) await once(stdout, 'drain')
}

/** Prints a line for people beside the result, to standard error. */
export function note(text: string) {
  stderr.write(`${text}\n`)
}

/**
 * Formats rows as a table for people, with a line of heads unless there are none. Characters that are twice as wide, or have no width,
 * stay in their column.
 */
export function formatTable(
  heads: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const bold = heads.map((head) => paint('bold', head))
  const lines = heads.length > 0 ? [bold, ...rows] : rows
  const widths: number[] = []
  for (const line of lines) {
    for (const [column, cell] of line.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, stringWidth(cell))
    }
  }
  const pad = (cell: string, column: number) =>
    cell + ' '.repeat((widths[column] ?? 0) - stringWidth(cell))
  return lines.map((line) => line.map(pad).join('  ').trimEnd()).join('\n')
}

/** Formats names and values as lines for people. */
export function formatFields(fields: Readonly<Record<string, string>>): string {
  const width = Math.max(...Object.keys(fields).map((name) => name.length))
  return Object.entries(fields)
    .map(([name, value]) => `${paint('bold', name.padEnd(width))}  ${value}`)
    .join('\n')
}

/** Replaces the characters of a text that do more than to show something. */
export function printable(text: string): string {
  return text.replaceAll(unprintable, '�')
}

/** Returns the JSON of a value, on one line. Such characters are escaped in it, because a terminal may show it. */
export function toJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(unprintable, escape)
}

function escape(character: string): string {
  const units = Array.from(character.split(''), (unit) => unit.charCodeAt(0))
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
}

/** Asks if something may be taken away. Throws unless the answer is yes. Without a terminal, `--yes` is the only yes. */
export async function confirm(text: string, { yes }: { yes?: boolean }) {
  if (yes === true) return
  const question = printable(text)
  if (!stdin.isTTY) {
    throw new CliError(
      exitCodes.unconfirmed,
      `${question} Nothing was changed: there is no terminal to ask on. Add --yes.`,
    )
  }
  const answer = await ask(`${question} [y/N] `, stderr)
  if (!/^y(es)?$/i.test(answer.trim())) {
    throw new CliError(exitCodes.unconfirmed, 'Nothing was changed.')
  }
}

const longestSecret = 8_192

/** Reads a secret from standard input: its first line, or what is typed, which is not shown. */
export async function readSecret(prompt: string): Promise<string> {
  if (stdin.isTTY) {
    const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
    // From then on the terminal itself shows nothing that is typed. Before, it would.
    const answer = await ask('', silent, () => stderr.write(prompt))
    stderr.write('\n')
    return answer.trim()
  }
  let text = ''
  for await (const chunk of stdin) {
    text += String(chunk)
    if (text.includes('\n') || text.length > longestSecret) break
  }
  return text.split('\n', 1)[0]?.trim() ?? ''
}

async function ask(
  question: string,
  output: NodeJS.WritableStream,
  onReady?: () => void,
): Promise<string> {
  const lines = createInterface({ input: stdin, output, terminal: true })
  onReady?.()
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.on('SIGINT', () => reject(new CliError(exitCodes.interrupted, 'Nothing was changed.')))
      lines.on('close', () => resolve(''))
      lines.question(question, resolve)
    })
  } finally {
    lines.close()
  }
}

function createBar(what: string) {
  // Scripts and short commands show none.
  const { SingleBar } = require('cli-progress') as typeof progress
  return new SingleBar({ format: `${what} {bar} {percentage}% {value}/{total}`, stream: stderr })
}

/** Shows the progress of long work on standard error, if that is a terminal. */
export function startProgress(what: string) {
  const bar = stderr.isTTY ? createBar(what) : undefined

  return {
    set(value: number, total: number) {
      if (!bar) return
      if (bar.getTotal() === total && bar.isActive) bar.update(value)
      else bar.start(total, value)
    },
    stop() {
      bar?.stop()
    },
  }
}
