import express, { type RequestHandler } from 'express'
import { Passport } from 'passport'

import { useWorld } from '../support/world'

interface Caller {
  authorization: string
  /** The owner of the key, if the key is good. */
  userId?: string
  status: number
}

let callers: Caller[]
/** The callers with good keys, who wait for each other half-way. */
let arrived: number
let letAllGo: () => void
let allAreHere: Promise<void>

const { apiKeys, http, createKey } = useWorld({
  options: {
    async loadOwner({ id: userId }) {
      arrived += 1
      if (arrived === callers.filter((caller) => caller.userId).length) letAllGo()
      await allAreHere
      return { id: userId, name: `The user ${userId}` }
    },
  },
})

beforeAll(async () => {
  callers = await Promise.all(Array.from({ length: 200 }, (_, index) => makeCaller(index)))
})

beforeEach(() => {
  arrived = 0
  allAreHere = new Promise((resolve) => {
    letAllGo = resolve
  })
})

/** Every second caller has a good key. The remaining callers have bad credentials of every kind. */
async function makeCaller(index: number): Promise<Caller> {
  const userId = `user-${index}`
  const { apiKey, plainTextKey } = await createKey({ userId })
  const authorization = `Bearer ${plainTextKey}`

  switch (index % 10) {
    case 1:
      await apiKeys.revoke(apiKey.id)
      return { authorization, status: 401 }
    case 3:
      await apiKeys.suspend(apiKey.id)
      return { authorization, status: 401 }
    case 5:
      return { authorization: `${authorization}x`, status: 401 }
    case 7:
      return { authorization: 'Bearer a.b.c', status: 401 }
    case 9:
      return { authorization: plainTextKey, status: 400 }
    default:
      return { authorization, status: 200, userId }
  }
}

describe('200 overlapping requests', () => {
  it.each<[string, () => RequestHandler[]]>([
    ['guards', () => [apiKeys.authenticate(), apiKeys.requirePermission('READ_GRAPH')]],
    [
      'the strategy by its name',
      () => [new Passport().use(apiKeys.strategy).authenticate('api-key', { session: false })],
    ],
    [
      // With other strategies, Passport 0.7 gives one request the verdict of another one here.
      'the strategy itself',
      () => [new Passport().authenticate(apiKeys.strategy, { session: false })],
    ],
  ])('have each their own identity and verdict through %s', async (_, makeHandlers) => {
    const app = express()
    app.use(...makeHandlers(), (_req, _res, next) => next())
    app.get('/:caller', (req, res) => {
      res.json({ caller: req.params.caller, user: req.user, owner: req.apiKey?.userId })
    })

    const answers = await Promise.all(
      callers.map(({ authorization }, index) =>
        http.to(app).get(`/${index}`).set('Authorization', authorization),
      ),
    )

    const identities = answers.map(({ body }) => (body.owner ? body : null))
    expect(answers.map(({ status }) => status)).toEqual(callers.map(({ status }) => status))
    expect(identities).toEqual(
      callers.map(({ userId }, index) =>
        userId
          ? { caller: `${index}`, user: { id: userId, name: `The user ${userId}` }, owner: userId }
          : null,
      ),
    )
  })
})
