import { compileFunction } from 'node:vm'

import express, { type RequestHandler } from 'express'

import { createApiKeys } from '../../lib'
import { blocksOf, readPage, sectionOf } from '../support/readme'
import { useWorld } from '../support/world'

const { database, http, rows } = useWorld()

/** The app of the page, which has its code run in it. */
const app = express()

const executeGraph: RequestHandler = (req, res) => {
  res.json({ executed: req.params.id })
}

/** Runs the example of the page, and returns the API keys that it has made. */
function runExample() {
  const [example = ''] = blocksOf(sectionOf(readPage('lib/http/README.md'), 'Resources'), 'ts')
  const names = ['createApiKeys', 'sequelize', 'app', 'executeGraph']
  const run = compileFunction(`${example}; return apiKeys`, names)
  // The page makes an app like this.
  return run(createApiKeys, database.connect(), app, executeGraph) as ReturnType<typeof likeThePage>
}

function likeThePage() {
  return createApiKeys({
    sequelize: database.connect(),
    keyPrefix: 'acme',
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    resources: { project: true, graph: true },
  })
}

let apiKeys: ReturnType<typeof likeThePage>

beforeAll(async () => {
  await rows('CREATE TABLE graphs (id text PRIMARY KEY, user_id text)')
  await rows(`INSERT INTO graphs VALUES ('7', 'alice'), ('8', 'alice'), ('9', 'bob')`)
  apiKeys = runExample()
  database.closeFirst(apiKeys)
})

async function createKey(resources: { graph?: string[]; project?: string[] } | null) {
  const { plainTextKey } = await apiKeys.create({
    userId: 'alice',
    name: 'Deployment',
    permissions: ['READ_GRAPH', 'EXECUTE_GRAPH'],
    resources,
  })
  return plainTextKey
}

describe('the example of the page', () => {
  it.each<[string, Parameters<typeof createKey>[0], string[]]>([
    ['all graphs of the owner, for a key that is not bound', null, ['7', '8']],
    [
      'all graphs of the owner, for a key that is bound to projects',
      { project: ['x'] },
      ['7', '8'],
    ],
    ['one graph', { graph: ['8'] }, ['8']],
    ['no graph, for an empty list', { graph: [] }, []],
  ])('lists %s', async (_, resources, ids) => {
    const answer = await http
      .to(app)
      .with(await createKey(resources))
      .get('/graphs')

    const graphs = answer.body as { id: string }[]
    expect(graphs.map(({ id }) => id).toSorted()).toEqual(ids)
  })

  it('executes the graphs of the key, and no other', async () => {
    const key = await createKey({ graph: ['7'] })
    const execute = async (id: string) =>
      (await http.to(app).with(key).post(`/graphs/${id}/execute`)).status

    expect([await execute('7'), await execute('8'), await execute('07')]).toEqual([200, 403, 403])
  })

  it('lets owners bind their own graphs alone', async () => {
    await expect(createKey({ graph: ['7', '9'] })).rejects.toMatchObject({
      errors: [{ pointer: '#/resources/graph', message: 'may not be bound by this owner' }],
    })
  })
})
