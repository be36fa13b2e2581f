/*
 * A program that uses the library for a moment: `node --require .../register.js script.ts <ending> <url> <key>`. What
 * its last lines do, or forget, is its first argument.
 */
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'

async function main([ending = '', url = '', key = '']: readonly string[]) {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 5, idle: 1000, evict: 500 } })
  const apiKeys = createTestApiKeys({ connect: () => sequelize })

  if (ending !== 'unused') {
    const { valid } = await apiKeys.verify(key)
    if (!valid) throw new Error('the key is good')
  }
  if (ending === 'twice') await Promise.all([apiKeys.close(), apiKeys.close()])
  if (ending === 'close') await apiKeys.close()
  if (ending !== 'forgot both') await sequelize.close()
  process.stdout.write('done\n')
}

void main(process.argv.slice(2))
