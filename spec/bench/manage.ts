import { randomInt, randomUUID } from 'node:crypto'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'

import { QueryTypes } from 'sequelize'

import { processorTimeOf } from './database'
import { userCount, userOf } from './manage-database'
import { keysPerCall, type Key, type Manager, type ManageVariant } from './manage-variants'
import { openManager } from './managers'
import { openBuild, thisBuild } from './ours'
import { answerQuestions } from './processes'
import { countRoundTrips, type RoundTrips } from './round-trips'

/*
 * One process of an app that manages keys, with one variant. It makes one kind of operation for some time, one at a
 * time or many at once, and reports their number and their cost.
 */

export type Operation =
  'create' | 'change' | 'suspend' | 'revoke' | 'rotate' | 'list' | 'createMany'

export type ManageQuestion =
  | { kind: 'operations' }
  | { kind: 'run'; operation: Operation; atOnce: number; ms: number }
  | { kind: 'stall'; creates: number }
  | { kind: 'fillTrail'; entries: number }
  | { kind: 'verify' }

export interface ManageAnswer {
  /** The operations that the variant has. */
  known?: Operation[]
  /** How many keys were worked on, or entries verified. */
  count: number
  seconds: number
  cpuMicroseconds: number
  roundTrips: RoundTrips
  /** How long it took afterwards until nothing was left to do, for example entries to seal. */
  settleSeconds: number
  /** How long the app's own queries waited, in milliseconds. */
  waits?: number[]
  /** The longest time for which a verification has blocked the event loop, in milliseconds. */
  longestBlockMs?: number
  /** How much more memory the process had at most than before, in megabytes. */
  growthMb?: number
}

const { DATABASE_URL: url = '', SECRET: secret = '', BUILD: build = thisBuild } = process.env
const { SHARE: share = '0/1' } = process.env
// The one argument is a name of a variant: the bench starts nothing else.
const variant = process.argv[2] as ManageVariant

const countedTrips = countRoundTrips(build)

async function start() {
  const manager = await openManager(variant, { url, build, secret })
  const work = createWork(manager, await ownShare(manager))

  answerQuestions((question: ManageQuestion) => answer(question, manager, work))
}

/** Each process works on keys of its own. The first of several has most of them. */
async function ownShare(manager: Manager): Promise<Key[]> {
  const [index = 0, processes = 1] = share.split('/').map(Number)
  const keys = await manager.existing()
  const owner = (place: number) => (place % 10 < processes ? place % 10 : 0)
  return keys.filter((_, place) => owner(place) === index)
}

function someUser(): string {
  return userOf(randomInt(userCount))
}

/** Makes an operation, and returns on how many keys it worked; 0 if no key is left for it. */
type Run = () => Promise<number>

/** Returns, for each operation of a variant, a function that makes one, and returns on how many keys it worked. */
function createWork(manager: Manager, keys: readonly Key[]): Record<Operation, Run | undefined> {
  const part = Math.floor(keys.length / 10)
  const fresh = keys.slice(3 * part)

  const { create, setPermissions, setSuspended, revoke, rotate, list, createMany } = manager

  return {
    create:
      create &&
      (async () => {
        const userId = someUser()
        fresh.push({ id: await create(userId), userId })
        return 1
      }),
    change: setPermissions && inTurn(keys.slice(0, part), setPermissions),
    suspend: setSuspended && inTurn(keys.slice(part, 2 * part), setSuspended),
    rotate: rotate && inTurn(keys.slice(2 * part, 3 * part), rotate),
    revoke:
      revoke &&
      (async () => {
        const key = fresh.pop()
        if (!key) return 0
        await revoke(key)
        return 1
      }),
    list:
      list &&
      (async () => {
        if ((await list(someUser())) === 0) throw new Error('a page without keys')
        return 1
      }),
    createMany:
      createMany &&
      (async () => {
        await createMany(Array.from({ length: keysPerCall }, someUser))
        return keysPerCall
      }),
  }
}

/** Works on one key after the other, and then on all of them once more, so that each time is a change. */
function inTurn(keys: readonly Key[], work: (key: Key, isEven: boolean) => Promise<unknown>) {
  let next = 0
  return async () => {
    const key = keys[next % keys.length]
    const isEven = Math.floor(next / keys.length) % 2 === 0
    next++
    if (!key) throw new Error('the table has too few keys')
    await work(key, isEven)
    return 1
  }
}

async function answer(
  question: ManageQuestion,
  manager: Manager,
  work: ReturnType<typeof createWork>,
): Promise<ManageAnswer> {
  switch (question.kind) {
    case 'operations': {
      const known = Object.entries(work).flatMap(([name, run]) => (run ? [name as Operation] : []))
      return { ...(await measure(async () => 0)), known }
    }
    case 'run': {
      const run = work[question.operation]
      if (!run) throw new Error(`${variant} has no ${question.operation}`)
      return measure(() => runFor(run, question), manager)
    }
    case 'stall':
      return stall(question.creates)
    case 'fillTrail':
      return measure(() => fillTrail(question.entries))
    case 'verify':
      return verifyTrail()
  }
}

async function measure(work: () => Promise<number>, manager?: Manager): Promise<ManageAnswer> {
  const tripsBefore = countedTrips()
  const cpuBefore = process.cpuUsage()
  const begunAt = performance.now()
  const count = await work()
  const seconds = (performance.now() - begunAt) / 1000
  const { user, system } = process.cpuUsage(cpuBefore)
  const trips = countedTrips()

  await manager?.settle?.()
  return {
    count,
    seconds,
    cpuMicroseconds: user + system,
    roundTrips: {
      own: trips.own - tripsBefore.own,
      polls: trips.polls - tripsBefore.polls,
      sealing: trips.sealing - tripsBefore.sealing,
    },
    settleSeconds: (performance.now() - begunAt) / 1000 - seconds,
  }
}

async function runFor(run: Run, { atOnce, ms }: { atOnce: number; ms: number }) {
  const endsAt = performance.now() + ms
  let count = 0

  async function goOn() {
    while (performance.now() < endsAt) {
      const done = await run()
      if (done === 0) return
      count += done
    }
  }
  await Promise.all(Array.from({ length: atOnce }, goOn))
  return count
}

/** One user sends many creates at once, while the app makes small queries of its own through its pool of 5. */
async function stall(creates: number): Promise<ManageAnswer> {
  const { apiKeys, sequelize } = openBuild({ url, build, connections: 5 })
  const userId = randomUUID()
  const waits: number[] = []
  // The connections are there already, as in an app that runs.
  await Promise.all(Array.from({ length: 5 }, () => sequelize.query('SELECT pg_sleep(0.05)')))
  await apiKeys.create({ userId, name: 'Deployment', permissions: ['READ_GRAPH'] })

  const over = new AbortController()
  // A query every few milliseconds: more would be a load of its own.
  async function askSteadily() {
    while (!over.signal.aborted) {
      const begunAt = performance.now()
      await sequelize.query('SELECT 1', { type: QueryTypes.SELECT })
      waits.push(performance.now() - begunAt)
      await sleep(3)
    }
  }
  const answer = await measure(async () => {
    const asking = askSteadily()
    await Promise.all(
      Array.from({ length: creates }, () =>
        apiKeys.create({ userId, name: 'Deployment', permissions: ['READ_GRAPH'] }),
      ),
    )
    over.abort()
    await asking
    return creates
  })
  await apiKeys.close()
  await sequelize.close()
  return { ...answer, waits }
}

/** Makes an audit trail of entries by triggers and as many by the library, all of them sealed. */
async function fillTrail(entries: number) {
  const { apiKeys, sequelize } = openBuild({ url, build, secrets: [secret] })
  await sequelize.query(
    `INSERT INTO api_keys (user_id, name, prefix, postfix, hash, permissions, created_at)
     SELECT 'user-' || number % 5000, 'Deployment ' || number, 'agpt_111111', '00000000',
            encode(sha256(('trail' || number)::bytea), 'hex'), '{READ_GRAPH}', now() - interval '3 days'
       FROM generate_series(1, $1::int) AS number`,
    { bind: [Math.ceil(entries / 2)] },
  )
  await apiKeys.revokeUnused({ unusedForDays: 2 })
  await apiKeys.auditHead()
  await apiKeys.close()
  await sequelize.close()
  return entries
}

async function verifyTrail(): Promise<ManageAnswer> {
  const { apiKeys, sequelize } = openBuild({ url, build, secrets: [secret] })
  const before = process.memoryUsage.rss()
  const stop = watchBlocks()
  const answer = await measure(async () => {
    const { isIntact, entries, faults } = await apiKeys.verifyAuditTrail()
    if (!isIntact) throw new Error(`the trail is not intact: ${JSON.stringify(faults.slice(0, 3))}`)
    return entries
  })
  const longestBlockMs = stop()
  await apiKeys.close()
  await sequelize.close()
  return {
    ...answer,
    longestBlockMs,
    // In kilobytes, and bytes.
    growthMb: Math.max(0, process.resourceUsage().maxRSS / 1024 - before / 1024 ** 2),
  }
}

/**
 * Watches how long other work of the process waits for its turn, and returns the function that ends it with the longest time. On Linux it is
 * the time on a processor between two turns, because other processes on the machine make no difference to it.
 */
function watchBlocks(): () => number {
  const delays = monitorEventLoopDelay({ resolution: 1 })
  delays.enable()
  let [last, longest] = [timeOfMainThread(), 0]
  const timer = setInterval(() => {
    const now = timeOfMainThread()
    longest = Math.max(longest, (now ?? 0) - (last ?? 0))
    last = now
  }, 1)
  return () => {
    clearInterval(timer)
    delays.disable()
    return last === undefined ? delays.max / 1e6 : longest
  }
}

/** In milliseconds; `undefined` where it is unknown. */
function timeOfMainThread(): number | undefined {
  return processorTimeOf(process.pid)[0]?.[1]
}

void start()
