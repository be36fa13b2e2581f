import { nameOf, type Caller } from '../database/turns'

/** The owner, the actor and the subject of a change. */
export interface Request extends Pick<Caller, 'owner' | 'actor'> {
  /** The owner of a new key, or the key. Two changes with one subject are not under way at once. */
  subject: string
  /** Revocations come before the other changes of their line. */
  isUrgent?: boolean
  /** The length of its texts in a statement. */
  bytes: number
}

/** The most changes in one statement, and the greatest length of their texts together. */
const mostMembers = 500
const mostBytes = 1_000_000

/** How many subjects each statement must get, so that they are shared. */
const leastSubjects = 8

/**
 * Chooses the members of a statement: revocations first, then one of each user in turn. If several statements can start, each gets its
 * part of the subjects. With all of them in one statement, the process would wait while the database works, and the reverse. `repeats` is
 * true if a statement may have several changes of one subject.
 */
export function chooseMembers<Each extends { request: Request }>(
  waiting: readonly Each[],
  repeats: boolean,
  statements: number,
): Each[] {
  const users = new Map<string, Each[]>()
  for (const each of waiting.toSorted((a, b) => rank(a) - rank(b))) {
    const name = nameOf(each.request)
    const queue = users.get(name)
    if (queue) queue.push(each)
    else users.set(name, [each])
  }
  const all = new Set(waiting.map(({ request }) => request.subject)).size
  const most = all < statements * leastSubjects ? all : Math.ceil(all / statements)

  const chosen: Each[] = []
  const subjects = new Set<string>()
  let bytes = 0
  for (let round = 0; users.size > 0; round++) {
    for (const [name, queue] of users) {
      const each = queue[round]
      const { subject = '', bytes: length = 0 } = each?.request ?? {}
      if (!each || chosen.length === mostMembers || bytes + length > mostBytes) {
        users.delete(name)
      } else if (subjects.has(subject) ? repeats : subjects.size < most) {
        chosen.push(each)
        subjects.add(subject)
        bytes += length
      }
    }
  }
  return chosen
}

function rank({ request }: { request: Request }): number {
  return request.isUrgent ? 0 : 1
}
