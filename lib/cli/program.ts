import { Command } from 'commander'

import { addAuditCommands } from './audit'
import { addDoctor } from './doctor'
import { addErase } from './erase'
import { addImport } from './import'
import { addKeyCommands } from './keys'
import { addReports } from './reports'
import { addScanners } from './scanners'
import { addUpkeep } from './upkeep'

/** Makes the program with all commands. It throws in place of ending the process. */
export function createProgram(version: string): Command {
  const program = new Command('express-api-keys')
    .description('Manages the API keys of an app, by the module that exports its instance.')
    .version(version)
    .option('-c, --config <file>', 'the module that exports your instance (default: api-keys.js)')
    .option('--json', 'print JSON, one value a line')
    .showHelpAfterError('(express-api-keys COMMAND --help shows the options)')
    .addHelpText('after', exitCodesHelp)
    // Before the commands, which inherit it.
    .exitOverride()
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })

  addUpkeep(program)
  addKeyCommands(program)
  addErase(program)
  addImport(program)
  addReports(program)
  addScanners(program)
  addAuditCommands(program)
  addDoctor(program)
  return program
}

const exitCodesHelp = `
Exit codes:
  0  done                          5  not confirmed
  1  a fault was found             6  the tables are missing or old
  2  wrong usage                   7  the role lacks a right
  3  refused, or no such key       130  interrupted (Ctrl-C)
  4  the database cannot be used   141  the output is not read to its end`
