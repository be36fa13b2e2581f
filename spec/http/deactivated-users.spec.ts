import { runInNewContext } from 'node:vm'

import express from 'express'
import request from 'supertest'

import { createApiKeys, type ApiKeys } from '../../lib'
import { readmeBlocks } from '../support/readme'
import { useWorld } from '../support/world'

const { database } = useWorld()

/** Runs the example up to the deactivation of the user, and returns the function that deactivates. */
async function runExample(statements: string[]) {
  const sequelize = database.connect({ logging: (statement) => statements.push(statement) })
  await sequelize.query('CREATE TABLE users (id text PRIMARY KEY, active boolean NOT NULL)')
  await sequelize.query(`INSERT INTO users VALUES ('alice', true), ('bob', true)`)

  const example = String(readmeBlocks('ts').find((block) => block.includes('AND active')))
  const [setUp = '', change = ''] = example.split(/^(?=await )/m)
  const keep = setUp.replace('const apiKeys =', 'return')
  const context = { createApiKeys, sequelize, apiKeys: undefined as ApiKeys | undefined }
  const apiKeys = runInNewContext(`(() => {${keep}})()`, context) as ApiKeys
  context.apiKeys = apiKeys
  database.closeFirst(apiKeys)

  return {
    apiKeys,
    deactivate: () => runInNewContext(`(async () => {${change}})()`, context) as Promise<void>,
    reactivate: () =>
      runInNewContext(
        `(async () => {${change.replace('active = false', 'active = true')}})()`,
        context,
      ) as Promise<void>,
  }
}

describe('README, "Deactivated users"', () => {
  it('shuts out the keys of a user, and brings them back, at no query per request', async () => {
    const statements: string[] = []
    const { apiKeys, deactivate, reactivate } = await runExample(statements)
    const app = express().get('/', apiKeys.requirePermission('READ_GRAPH'), (_req, res) => {
      res.end()
    })
    const [alice, bob] = await Promise.all(
      ['alice', 'bob'].map(async (userId) => {
        const key = { userId, name: 'CI', permissions: ['READ_GRAPH'] as const }
        return (await apiKeys.create(key)).plainTextKey
      }),
    )
    const use = async (key: string | undefined) =>
      (await request(app).get('/').set('Authorization', `Bearer ${key}`)).status

    expect([await use(alice), await use(bob)]).toEqual([200, 200])
    statements.length = 0
    for (let time = 0; time < 10; time++) expect(await use(alice)).toBe(200)
    expect(statements).toEqual([])

    await deactivate()
    expect([await use(alice), await use(bob)]).toEqual([403, 200])
    statements.length = 0
    for (let time = 0; time < 10; time++) expect(await use(alice)).toBe(403)
    expect(statements).toEqual([])

    await reactivate()
    expect(await use(alice)).toBe(200)
  })
})
