import { EventEmitter, once } from 'node:events'

import * as pg from 'pg'

/** The statements that a driver was asked to run, on any connection, Sequelize's and ours. */
export interface Statements {
  /** The driver, for the option `dialectModule` of Sequelize. */
  driver: object
  all: string[]
  /** The names under which statements were prepared. */
  names: Set<string>
  /** Holds the answers of look-ups back until `letGo()`. Resolves when the first answer is there. */
  holdLookUps(): Promise<void>
  letGo(): void
  /** The statements that look up keys for verification. */
  lookUps(): string[]
  /** The statements that poll the log. */
  polls(): string[]
}

/** Makes a driver that keeps a list of all statements. */
export function recordStatements(): Statements {
  const all: string[] = []
  const names = new Set<string>()
  let gate: { opened: Promise<unknown>; open(): void; arrived(): void } | undefined

  async function pass<Result>(sql: string, answer: Promise<Result>): Promise<Result> {
    const result = await answer
    if (!gate || !isLookUp(sql)) return result

    gate.arrived()
    await gate.opened
    return result
  }

  class RecordingClient extends pg.Client {
    constructor(...options: ConstructorParameters<typeof pg.Client>) {
      super(...options)
      const query = this.query.bind(this) as (...args: unknown[]) => unknown
      Object.assign(this, {
        query(...args: unknown[]) {
          const [statement] = args as [string | { text: string; name?: string }]
          const isPlain = typeof statement === 'string'
          const text = isPlain ? statement : statement.text
          const name = isPlain ? undefined : statement.name
          all.push(text)
          if (name !== undefined) names.add(name)
          const answer = query(...args)
          return answer instanceof Promise ? pass(text, answer) : answer
        },
      })
    }
  }

  return {
    driver: { ...pg, Client: RecordingClient },
    all,
    names,
    holdLookUps() {
      return new Promise((arrived) => {
        const latch = new EventEmitter()
        gate = { opened: once(latch, 'open'), open: () => latch.emit('open'), arrived }
      })
    },
    letGo() {
      gate?.open()
      gate = undefined
    },
    lookUps: () => all.filter(isLookUp),
    polls: () => all.filter((sql) => sql.includes('fingerprint')),
  }
}

function isLookUp(sql: string): boolean {
  return sql.includes('key.hash = ANY')
}
