import type { Command } from 'commander'

import type { Run } from '../../migrations/transaction'
import { select } from '../database/query'
import { describe } from '../verification/health'
import { addCommand, printList } from './command'
import type * as ofApp from './doctor-app'
import type * as ofServer from './doctor-server'
import type * as ofTables from './doctor-tables'
import { exitCodes } from './exit-codes'
import type { Loaded } from './instance'
import { note, paint, printable } from './terminal'

/** The result of a check: all is well, a change is advised, a part is broken, or the check could not be made. */
export interface Finding {
  check: string
  state: 'ok' | 'advice' | 'fault' | 'unknown'
  finding: string
  /** The remedy. */
  remedy?: string
}

/** The parts that checks work with. */
export interface Patient extends Loaded {
  /** Runs a statement outside a transaction, and returns its rows. */
  run: Run
}

/** Returns the findings of a part. They come one after the other, because a check may take a while. */
export type Check = (patient: Patient) => Promise<Finding[]>

/** Returns all checks by their names. All other commands load none of them, and no migrations. */
function loadChecks(): readonly (readonly [name: string, check: Check])[] {
  const { checkServer } = require('./doctor-server') as typeof ofServer
  const { checkTables } = require('./doctor-tables') as typeof ofTables
  const { checkApp } = require('./doctor-app') as typeof ofApp
  return [...checkServer, ...checkTables, ...checkApp]
}

/** Adds the command that looks for what goes wrong in practice. */
export function addDoctor(program: Command) {
  addCommand(
    program,
    'doctor',
    'look for what goes wrong in practice, and say what to do about it',
    async (app, options) => {
      const findings = await examine(app)
      await printList(options, findings, ['', 'CHECK', 'FINDING'], ({ state, check, finding }) => [
        paintState(state),
        check,
        printable(finding),
      ])
      if (options.json !== true) printRemedies(findings)
      return findings.some(({ state }) => state === 'fault') ? exitCodes.faulty : exitCodes.done
    },
  )
}

async function examine(app: Loaded): Promise<Finding[]> {
  const { sequelize } = app.parts
  const run: Run = (sql, bind) => select(sequelize, sql, { bind, transaction: null })
  const findings: Finding[] = []
  for (const [name, check] of loadChecks()) {
    try {
      const found = await check({ ...app, run })
      findings.push(...found)
    } catch (error) {
      findings.push({ check: name, state: 'unknown', finding: describe(error) })
    }
    // Without a connection, all other checks of the database would say the same.
    if (name === 'connection' && findings.at(-1)?.state !== 'ok') break
  }
  return findings
}

function paintState(state: Finding['state']): string {
  if (state === 'ok') return paint('green', 'ok')
  if (state === 'fault') return paint('red', 'FAULT')
  return state === 'advice' ? paint('yellow', 'advice') : 'unknown'
}

function printRemedies(findings: readonly Finding[]) {
  const remedies = findings.flatMap(({ check, remedy }) =>
    remedy === undefined ? [] : [printable(`${check}: ${remedy}`)],
  )
  if (remedies.length > 0) note(['', 'What to do:', ...remedies].join('\n'))
}
