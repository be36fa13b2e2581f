/*
 * A program that makes one change and is killed on the way: `node --require .../register.js killed.ts <url> <change>
 * <id> <statements> <secret>`. It kills itself, by SIGKILL, when that number of statements was answered. The secret is in hexadecimal.
 */
import * as pg from 'pg'
import { Sequelize } from 'sequelize'

import { createTestApiKeys, type Options } from '../support/app'
import { tableOfOwn } from '../support/imported-keys'
import { newKey } from '../support/keys'

/** The secret of the program and of the spec that starts it. */
export const secret = 'a secret that is of these two programs, and of no others'

let left = Infinity

function count() {
  left--
  // A signal is delivered before the next statement runs.
  if (left === 0) process.kill(process.pid, 'SIGKILL')
}

async function countAnswer(answer: unknown) {
  const result = await answer
  count()
  return result
}

/** Counts the statements that were answered. */
class CountingClient extends pg.Client {
  constructor(...options: ConstructorParameters<typeof pg.Client>) {
    super(...options)
    const query = this.query.bind(this) as (...args: unknown[]) => unknown
    Object.assign(this, {
      query(...args: unknown[]) {
        const callback = args.at(-1)
        if (typeof callback !== 'function') return countAnswer(query(...args))

        return query(...args.slice(0, -1), (...answer: unknown[]) => {
          count()
          callback(...answer)
        })
      },
    })
  }
}

async function main([
  url = '',
  change = '',
  id = '',
  statements = '',
  ownSecret,
]: readonly string[]) {
  const sequelize = new Sequelize(url, {
    logging: false,
    dialectModule: { ...pg, Client: CountingClient },
  })
  const apiKeys = createTestApiKeys({ connect: () => sequelize }, {
    secrets: [ownSecret === undefined ? secret : Buffer.from(ownSecret, 'hex')],
    ...(change === 'importKeys' && { imports: [tableOfOwn.source] }),
  } as Options)
  // The first statements of a new connection are not part of the change.
  await apiKeys.list()

  left = Number(statements)
  if (change === 'create') await apiKeys.create(newKey())
  if (change === 'rotate') await apiKeys.rotate(id)
  if (change === 'revokeAll') await apiKeys.revokeAll({ type: 'user', id: 'alice' })
  if (change === 'pruneAuditTrail') await apiKeys.pruneAuditTrail({ olderThanDays: 365 })
  if (change === 'importKeys') await apiKeys.importKeys('legacy', tableOfOwn.rows(Number(id)))
  if (change === 'eraseOwner') {
    const reason = 'Request 4711'
    await apiKeys.eraseOwner({ type: 'user', id }, { reason, revoke: true })
  }
  left = Infinity
  process.stdout.write('done')
  await sequelize.close()
}

if (require.main === module) void main(process.argv.slice(2))
