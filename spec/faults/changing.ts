/*
 * A program that changes keys until it is killed: `node --require .../register.js changing.ts <url>`. It writes a line
 * once it has begun.
 */
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'
import { createKey } from '../support/keys'
import { secret } from './killed'

async function main([url = '']: readonly string[]) {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 4 } })
  const apiKeys = createTestApiKeys({ connect: () => sequelize }, { secrets: [secret] })

  async function change(loop: number) {
    for (;;) {
      // Transactions that meet may fail, and the next changes go on.
      await changeKey(loop).catch(() => {})
    }
  }

  async function changeKey(loop: number) {
    const { id } = await createKey(apiKeys, { userId: `user ${process.pid} ${loop}` })
    await apiKeys.update(id, { name: 'Backup' })
    // The trail of another transaction is sealed late, with a lower id.
    const transaction = await sequelize.transaction()
    await apiKeys.suspend(id, { transaction })
    await (loop === 0 ? transaction.rollback() : transaction.commit())
    await apiKeys.revoke(id)
  }

  await createKey(apiKeys)
  process.stdout.write('begun\n')
  await Promise.all([0, 1, 2].map(change))
}

void main(process.argv.slice(2))
