/*
 * A process that verifies a trail: `node --expose-gc --require .../register.js verifying.ts <url> <secret>`. It prints how many entries
 * there are, and the most memory that it holds meanwhile, in bytes.
 */
import { Sequelize } from 'sequelize'

import { createTestApiKeys } from '../support/app'

async function main([url = '', secret = '']: readonly string[]) {
  const sequelize = new Sequelize(url, { logging: false })
  const apiKeys = createTestApiKeys({ connect: () => sequelize }, { secrets: [secret] })
  // The first verification loads what each verification needs.
  await apiKeys.verifyAuditTrail()

  let [calls, most] = [0, 0]
  const { isIntact, entries } = await apiKeys.verifyAuditTrail({
    onProgress() {
      if (calls++ % 5 === 0) most = Math.max(most, heap())
    },
  })
  process.stdout.write(JSON.stringify({ isIntact, entries, most }))
  await apiKeys.close()
  await sequelize.close()
}

function heap(): number {
  for (let times = 0; times < 2; times++) globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

void main(process.argv.slice(2))
