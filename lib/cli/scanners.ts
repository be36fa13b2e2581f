import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'

import { Option, type Command } from 'commander'

import { scannedForms } from '../leaks/scanned-forms'
import { scanners, type Scanner } from '../leaks/scanner-rules'
import { addCommand, type CommonOptions } from './command'
import { CliError, exitCodes } from './exit-codes'
import { faultOfFile } from './files'
import { note, print } from './terminal'

interface ScannersOptions extends CommonOptions {
  for: Scanner
  output?: string
}

/** Adds the command `scanners`, which prints the rules by which scanners find the keys of the app. */
export function addScanners(program: Command) {
  addCommand<ScannersOptions>(
    program,
    'scanners',
    'print rules by which a secret scanner finds the keys of your app',
    async ({ apiKeys, parts }, { for: scanner, output, json }) => {
      const rules = apiKeys.scannerRules(scanner)
      for (const source of scannedForms(parts).unscanned) {
        note(`There is no rule for the keys of ${source}, because they have no fixed start.`)
      }
      if (output !== undefined) return write(resolve(output), rules)
      await print(json === true ? JSON.stringify({ scanner, rules }) : rules.trimEnd())
    },
  )
    .addOption(new Option('--for <scanner>', 'the scanner').choices(scanners).makeOptionMandatory())
    .option('--output <file>', 'a new file for the rules')
}

async function write(path: string, rules: string) {
  try {
    // A configuration that is there has other rules, too.
    await writeFile(path, rules, { flag: 'wx' })
  } catch (error) {
    const message = `The rules cannot be written: ${faultOfFile(path, error)}. Without --output, they are printed.`
    throw new CliError(exitCodes.usage, message, { cause: error })
  }
  note(`The rules are in ${path}.`)
}
