import { wait, type Background } from '../database/background'
import { isConflict, sqlStateOf } from '../database/failures'
import { nameOf, type Caller, type InTurn } from '../database/turns'
import { ApiKeysError } from '../errors'

/*
 * Changes that arrive while a statement is under way go into the next statement. COMMITs of numbered changes are
 * serial, so a process that sent each change by itself could not make a thousand changes in a second. A statement also
 * needs one connection for all its members.
 */

/** The functions that make one kind of change. */
export interface Line<Member, Result> {
  /** True if one statement may have several members with one subject. */
  repeats: boolean
  /** Makes changes in one statement. Throws if the statement has failed, so that nothing was changed. */
  send(members: readonly Member[]): Promise<Sent<Result>>
  /** Makes one change, and waits for locks no longer than `patienceMs`. */
  sendAlone(member: Member, patienceMs: number): Promise<Sent<Result>>
}

/** The outcome of each member. */
export interface Sent<Result> {
  /** `again` for a member that another transaction held up. */
  outcomes: readonly (Outcome<Result> | 'again')[]
  /** Called before the members are answered, when the connection is free again. */
  finish(): Promise<void>
}

export type Outcome<Result> = { result: Result } | { error: unknown }

/** The owner, the actor and the subject of a change. */
export interface Request extends Pick<Caller, 'owner' | 'actor'> {
  /** The owner of a new key, or the key. Two changes with one subject are not under way at once. */
  subject: string
  /** Revocations come before the other changes of their line. */
  isUrgent?: boolean
  /** The length of its texts in a statement. */
  bytes: number
}

interface Waiting {
  line: Line<unknown, unknown>
  member: unknown
  request: Request
  endsAt: number
  tries: number
  settle(outcome: Outcome<unknown>): void
}

/** The most changes in one statement, and the greatest length of their texts together. */
const mostMembers = 500
const mostBytes = 1_000_000

/** How many statements for several changes are under way at once. */
const mostStatements = 2

/** How many changes are made by themselves at once, because a statement for several has failed. */
const mostAlone = 2

/** How often a change goes into a statement with other changes. After that, it waits for the lock that holds it up. */
const mostTries = 3

/** How long the first try of a change by itself waits for a lock, and how long each further try. */
const firstPatienceMs = 25
const patienceMs = 500

/** How long changes of a user or a key go by themselves after such a change had to wait, or has made a statement fail. */
const slowMs = 5_000

/** How many such users and keys are kept. */
const mostSlow = 10_000

/** The SQLSTATEs of a wait that took too long, a deadlock and a conflict. */
const waits = /^(55P03|40P01|40001)$/

/**
 * The SQLSTATEs that say nothing about one member: of the connection, the role, the tables, the server. One member may
 * cause any other, because a trigger of the app may raise any.
 */
const ofServer = /^(|0[8A]...|2[568]...|3[DF]...|42(?!501)...|5[38]...|57P..|XX...)$/

interface CombinerParts {
  background: Background
  inTurn: InTurn
  /** How many connections of the app's pool there are for calls. */
  mostAtOnce: number
  /** How long a call waits in all. */
  limitMs: number
}

interface State extends CombinerParts {
  /** The changes that wait for a statement, in the order of arrival. */
  waiting: Waiting[]
  /** The changes that go by themselves. */
  alone: Waiting[]
  /** The subjects that are under way. */
  busy: Set<string>
  /** The times until which changes of a subject go by themselves. */
  slow: Map<string, number>
  /** The statements, and the changes by themselves, that are under way or wait for their turn. */
  statements: number
  singles: number
  last: Line<unknown, unknown> | undefined
  /** True if a timer will look for changes that have waited too long. */
  isWatched: boolean
}

/** Submits a change, and resolves with its result after it is made. */
export type Submit = ReturnType<typeof createCombiner>

/** Creates the function that makes changes, several in one statement if they arrive together. */
export function createCombiner(parts: CombinerParts) {
  const state: State = {
    ...parts,
    waiting: [],
    alone: [],
    busy: new Set(),
    slow: new Map(),
    statements: 0,
    singles: 0,
    last: undefined,
    isWatched: false,
  }

  return function submit<Member, Result>(
    line: Line<Member, Result>,
    member: Member,
    request: Request,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      const each: Waiting = {
        line,
        member,
        request,
        endsAt: Date.now() + state.limitMs,
        tries: 0,
        settle: (outcome) =>
          'error' in outcome ? reject(outcome.error) : resolve(outcome.result as Result),
      }
      if (isSlow(state, each)) state.alone.push(each)
      else state.waiting.push(each)
      start(state)
    })
  }
}

/** Starts as many statements as are allowed, if changes wait for them. */
function start(state: State) {
  const { background } = state
  const mostSingles = Math.max(1, Math.min(mostAlone, state.mostAtOnce - 1))
  const isFree = (each: Waiting) => !state.busy.has(each.request.subject)
  if (state.statements < mostStatements && state.waiting.some(isFree)) {
    state.statements++
    background.run(() => void makeStatement(state))
  }
  while (state.singles < mostSingles && state.alone.some(isFree)) {
    state.singles++
    background.run(() => void makeSingle(state))
  }
  if (!state.isWatched) watch(state)
}

function watch(state: State) {
  const first = [...state.waiting, ...state.alone].reduce(
    (least, { endsAt }) => Math.min(least, endsAt),
    Infinity,
  )
  if (first === Infinity) return
  state.isWatched = true
  state.background.startTimer(() => giveUpLate(state), Math.max(1, first - Date.now()))
}

/** Gives up changes that have waited too long. The statements before them may hang, behind a lock on a whole table for example. */
function giveUpLate(state: State) {
  const cause = new Error(`express-api-keys: no statement in ${state.limitMs} ms`)
  giveUp(state, Date.now(), new ApiKeysError('database_unavailable', { cause }))
  state.isWatched = false
  start(state)
}

/** Gives up changes that wait, and whose time was over at a moment. */
function giveUp(state: State, atMs: number, error: unknown) {
  for (const queue of ['waiting', 'alone'] as const) {
    const late = state[queue].filter(({ endsAt }) => endsAt <= atMs)
    state[queue] = state[queue].filter(({ endsAt }) => endsAt > atMs)
    for (const each of late) each.settle({ error })
  }
}

async function makeStatement(state: State) {
  const startedAt = Date.now()
  try {
    // Changes that arrive in the same tick go into the same statement.
    await Promise.resolve()
    await state.inTurn({}, () => makeTogether(state, takeMembers(state)))
  } catch (error) {
    // There was no turn. Changes that have waited as long for it are given up.
    giveUp(state, startedAt + state.limitMs, error)
  } finally {
    state.statements--
    start(state)
  }
}

/**
 * Takes the members of the next statement: revocations first, then one of each user in turn. The lines take turns, because
 * otherwise a user who revokes keys without a pause would keep all users from creating keys.
 */
function takeMembers(state: State): Waiting[] {
  const free = state.waiting.filter(({ request }) => !state.busy.has(request.subject))
  const { line } = free.find((each) => each.line !== state.last) ?? free[0] ?? {}
  if (!line) return []

  const users = new Map<string, Waiting[]>()
  for (const each of free.toSorted((a, b) => rank(a) - rank(b))) {
    if (each.line !== line) continue
    const name = nameOf(each.request)
    const queue = users.get(name)
    if (queue) queue.push(each)
    else users.set(name, [each])
  }
  const taken = new Set<Waiting>()
  const subjects = new Set<string>()
  let bytes = 0
  for (let round = 0; users.size > 0; round++) {
    for (const [name, queue] of users) {
      const each = queue[round]
      if (!each || taken.size === mostMembers || bytes + each.request.bytes > mostBytes) {
        users.delete(name)
      } else if (line.repeats || !subjects.has(each.request.subject)) {
        taken.add(each)
        subjects.add(each.request.subject)
        bytes += each.request.bytes
      }
    }
  }
  state.last = line
  state.waiting = state.waiting.filter((each) => !taken.has(each))
  for (const subject of subjects) state.busy.add(subject)
  start(state)
  return [...taken]
}

function rank({ request }: Waiting): number {
  return request.isUrgent ? 0 : 1
}

async function makeTogether(state: State, members: readonly Waiting[]) {
  const [first] = members
  if (!first) return

  try {
    const sent = await first.line.send(members.map(({ member }) => member))
    answer(state, members, sent)
  } catch (error) {
    const sqlState = sqlStateOf(error)
    const mayGoAlone = members.length > 1 ? !ofServer.test(sqlState) : waits.test(sqlState)
    if (mayGoAlone) state.alone.push(...members)
    else for (const each of members) each.settle({ error })
  } finally {
    for (const { request } of members) state.busy.delete(request.subject)
  }
}

async function makeSingle(state: State) {
  const each = takeSingle(state)
  const { request } = each
  try {
    await state.inTurn(request, () => makeAlone(state, each))
  } catch (error) {
    each.settle({ error })
  } finally {
    state.busy.delete(request.subject)
    state.singles--
    start(state)
  }
}

/**
 * Takes a change that has not waited long for a lock, if there is one. It may be there only because other changes had
 * to wait.
 */
function takeSingle(state: State): Waiting {
  const free = state.alone.filter(({ request }) => !state.busy.has(request.subject))
  const order = (each: Waiting) => (isSlow(state, each) ? 1_000 : 0) + each.tries
  const next = free.reduce((best, each) => (order(each) < order(best) ? each : best))
  state.alone.splice(state.alone.indexOf(next), 1)
  state.busy.add(next.request.subject)
  return next
}

async function makeAlone(state: State, each: Waiting) {
  const isPatient = isSlow(state, each)
  try {
    const { line, member } = each
    const sent = await line.sendAlone(member, isPatient ? patienceMs : firstPatienceMs)
    answer(state, [each], sent)
  } catch (error) {
    const sqlState = sqlStateOf(error)
    if (!ofServer.test(sqlState)) {
      if (state.slow.size > mostSlow) state.slow.clear()
      state.slow.set(each.request.subject, Date.now() + slowMs)
    }
    if (!waits.test(sqlState) || Date.now() >= each.endsAt) throw error

    // The members of a deadlock would meet again.
    if (isConflict(error)) await wait(Math.random() * 20)
    each.tries++
    state.alone.push(each)
  }
}

function isSlow({ slow }: State, { request }: Waiting): boolean {
  const until = slow.get(request.subject)
  if (until === undefined) return false
  if (until > Date.now()) return true
  slow.delete(request.subject)
  return false
}

/** Answers the members, in their order, and queues the members again that another transaction held up. */
function answer(state: State, members: readonly Waiting[], sent: Sent<unknown>) {
  const answered: [Waiting, Outcome<unknown>][] = []
  for (const [index, each] of members.entries()) {
    const outcome = sent.outcomes[index] ?? 'again'
    if (outcome !== 'again') {
      answered.push([each, outcome])
      continue
    }
    each.tries++
    if (each.tries < mostTries) state.waiting.unshift(each)
    else state.alone.push(each)
  }
  const settle = () => {
    for (const [each, outcome] of answered) each.settle(outcome)
  }
  void sent.finish().then(settle, settle)
}
