/*
 * A process under attack: `node --expose-gc --require .../register.js garbage.ts <url> <malformed> <unknown>` verifies
 * these numbers of distinct strings that are no keys, and of well-formed keys that were never created. It prints its
 * heap, in bytes, after a third and at the end.
 */
import { randomBytes } from 'node:crypto'

import { Sequelize } from 'sequelize'

import { createSecretFormat } from '../../lib/keys/secret'
import { createTestApiKeys } from '../support/app'

const atOnce = 200

async function main([url = '', malformed = '0', unknown = '0']: readonly string[]) {
  const sequelize = new Sequelize(url, { logging: false })
  const apiKeys = createTestApiKeys({ connect: () => sequelize }, { cacheSize: 2000 })
  const format = createSecretFormat({ keyPrefixes: ['agpt'], secrets: [], acceptUnkeyed: false })

  async function attack(share: number) {
    for (let left = Number(malformed) * share; left > 0; left -= atOnce) {
      await refused(() => `agpt_${randomBytes(40).toString('hex').slice(0, 51)}`)
    }
    for (let left = Number(unknown) * share; left > 0; left -= atOnce) {
      await refused(() => format.mint('agpt').plainTextKey)
    }
    await apiKeys.flush()
  }

  async function refused(make: () => string) {
    const verdicts = await Promise.all(Array.from({ length: atOnce }, () => apiKeys.verify(make())))
    if (verdicts.some(({ valid }) => valid)) throw new Error('garbage was accepted')
  }

  await attack(1 / 3)
  const third = heap()
  await attack(2 / 3)
  const end = heap()
  process.stdout.write(JSON.stringify({ third, end }))
  await apiKeys.close()
  await sequelize.close()
}

function heap(): number {
  for (let times = 0; times < 4; times++) globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

void main(process.argv.slice(2))
