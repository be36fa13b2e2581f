import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

import type { BenchContext } from './bench'
import { forgeKeys } from './keys'
import { startHelper } from './processes'
import { spreadOf } from './statistics'
import { formatTable, type Target } from './tables'
import type { TransportMode, TransportServer } from './transport-server'

/*
 * The time of the answer to a request over plain HTTP, with a good key, with a bad one and without a key. Each is sent in turn, in an order
 * by chance, over one connection, with a request that is not measured between two of them. The bytes of all answers are compared, but for the time in `Date`.
 */

const kinds = ['good', 'bad', 'absent'] as const
type Kind = (typeof kinds)[number]

/** Microseconds from the request to the last byte of its answer. */
type Times = Record<Kind, Float64Array>

const warmUp = 5_000
const mostDifferenceUs = 5

/** Measures the answers of both ways to refuse plain HTTP, prints the table, and returns the targets with their results. */
export async function measureTransport(context: BenchContext): Promise<Target[]> {
  const { server, pinning, secret, isQuick, print, log } = context
  const answers = isQuick ? 5_000 : 100_000
  const targets: Target[] = []
  const rows: string[][] = []
  for (const mode of ['refuse', 'revoke'] as const) {
    log(`answers over plain HTTP, ${mode}`)
    const app = await startHelper<TransportMode, TransportServer>({
      file: 'transport-server.ts',
      env: { DATABASE_URL: await server.createDatabase(`transport_${mode}`), SECRET: secret },
      cpus: pinning?.measured,
    })
    try {
      const { times, differing } = await exchange(await app.ask(mode), answers)
      rows.push(...kinds.map((kind) => rowOf(mode, kind, times)))
      targets.push(...targetsOf(mode, times, differing))
    } finally {
      await app.stop()
    }
  }
  print(
    `## Plain HTTP\n\n${answers.toLocaleString('en')} answers for each kind of key, in turn, over one connection.`,
  )
  print(
    formatTable(
      ['insecureTransport, key', 'median µs', 'quartiles', '95th', '99th percentile'],
      rows,
    ),
  )
  return targets
}

async function exchange({ port, keys }: TransportServer, answers: number) {
  const forged = forgeKeys(keys.length)
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  const ask = createAsker(socket)
  const times: Times = {
    good: new Float64Array(answers),
    bad: new Float64Array(answers),
    absent: new Float64Array(answers),
  }
  const first = maskDate((await ask(requestOf(undefined))).answer)
  let differing = 0
  for (let round = -warmUp; round < answers; round++) {
    const at = Math.floor(Math.random() * keys.length)
    const sent: Record<Kind, string | undefined> = {
      good: keys[at],
      bad: forged[at],
      absent: undefined,
    }
    for (const kind of shuffled()) {
      const { answer, us } = await ask(requestOf(sent[kind]))
      // The work that begins after an answer is over before the next one is measured.
      await ask(requestOf(undefined))
      if (!maskDate(answer).equals(first)) differing++
      if (round >= 0) times[kind][round] = us
    }
  }
  socket.destroy()
  return { times, differing }
}

/** Makes the function that sends a request and waits for its answer, whose length all answers have. */
function createAsker(socket: Socket) {
  let length = 0
  let received = Buffer.alloc(0)
  let done: () => void = noAnswer
  socket.on('data', (chunk) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
    length ||= lengthOf(received)
    if (length > 0 && received.length >= length) done()
  })

  return async function ask(request: string) {
    received = Buffer.alloc(0)
    const answered = new Promise<void>((resolve) => (done = resolve))
    const from = process.hrtime.bigint()
    socket.write(request)
    await answered
    return { answer: received, us: Number(process.hrtime.bigint() - from) / 1_000 }
  }
}

function noAnswer() {}

/** Returns the length of an answer, from its head; 0 if that has not arrived. */
function lengthOf(answer: Buffer): number {
  const head = answer.indexOf('\r\n\r\n')
  const [, length] = /^content-length: (\d+)/im.exec(answer.toString('latin1')) ?? []
  return head === -1 || length === undefined ? 0 : head + 4 + Number(length)
}

function requestOf(key: string | undefined): string {
  const credential = key === undefined ? '' : `Authorization: Bearer ${key}\r\n`
  const proxy = 'X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: http\r\n'
  return `GET /graphs/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n${proxy}${credential}\r\n`
}

/** Returns a copy of an answer without the time in it, which has the same length at all times. */
function maskDate(answer: Buffer): Buffer {
  const copy = Buffer.from(answer)
  const at = copy.indexOf('\r\nDate: ')
  if (at !== -1) copy.fill('0', at + 8, copy.indexOf('\r\n', at + 8))
  return copy
}

function shuffled(): Kind[] {
  return kinds
    .map((kind) => ({ kind, place: Math.random() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ kind }) => kind)
}

function rowOf(mode: TransportMode, kind: Kind, times: Times): string[] {
  const sorted = times[kind].toSorted()
  const { median, low, high } = spreadOf([...sorted])
  const at = (share: number) => (sorted[Math.floor(share * sorted.length)] ?? 0).toFixed(1)
  return [
    `${mode}, ${kind}`,
    median.toFixed(1),
    `${low.toFixed(1)}–${high.toFixed(1)}`,
    at(0.95),
    at(0.99),
  ]
}

function targetsOf(mode: TransportMode, times: Times, differing: number): Target[] {
  const medians = kinds.map((kind) => spreadOf([...times[kind]]).median)
  const apart = Math.max(...medians) - Math.min(...medians)
  return [
    {
      what: `Plain HTTP, ${mode}: the medians of good, bad and absent keys are apart by`,
      wanted: `≤ ${mostDifferenceUs} µs`,
      measured: `${apart.toFixed(2)} µs`,
      isMet: apart <= mostDifferenceUs,
    },
    {
      what: `Plain HTTP, ${mode}: answers with other bytes`,
      wanted: '0',
      measured: String(differing),
      isMet: differing === 0,
    },
  ]
}
