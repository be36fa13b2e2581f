import type { Database } from './database'
import type { JsonObject } from './json'
import { hashPassword } from './passwords'
import type { Graph } from './run-graph'

interface Seed {
  username: string
  admin: boolean
  blocks: { id: string; name: string; kind: string; settings: JsonObject }[]
  graphs: (Graph & { id: string; name: string })[]
}

/** Everybody's password is the username. */
const seeds: Seed[] = [
  {
    username: 'alice',
    admin: false,
    blocks: [
      {
        id: 'greet',
        name: 'Greet someone',
        kind: 'text.template',
        settings: { template: 'Hello, {{name}}!' },
      },
      { id: 'shout', name: 'Shout', kind: 'text.uppercase', settings: {} },
      { id: 'add', name: 'Add two numbers', kind: 'math.add', settings: {} },
      { id: 'multiply', name: 'Multiply two numbers', kind: 'math.multiply', settings: {} },
      {
        id: 'describe-order',
        name: 'Describe an order',
        kind: 'text.template',
        settings: { template: '{{quantity}} at {{price}} and {{shipping}} shipping: {{total}}' },
      },
    ],
    graphs: [
      {
        id: 'greeting',
        name: 'A loud greeting',
        inputs: ['name'],
        nodes: [
          { id: 'hello', blockId: 'greet', inputs: { name: { input: 'name' } } },
          { id: 'loud', blockId: 'shout', inputs: { text: { node: 'hello' } } },
        ],
        outputs: { greeting: 'loud' },
      },
      {
        id: 'order-total',
        name: 'What an order costs',
        inputs: ['price', 'quantity'],
        nodes: [
          {
            id: 'text',
            blockId: 'describe-order',
            inputs: {
              quantity: { input: 'quantity' },
              price: { input: 'price' },
              shipping: { literal: 5 },
              total: { node: 'total' },
            },
          },
          {
            id: 'total',
            blockId: 'add',
            inputs: { a: { node: 'goods' }, b: { literal: 5 } },
          },
          {
            id: 'goods',
            blockId: 'multiply',
            inputs: { a: { input: 'price' }, b: { input: 'quantity' } },
          },
        ],
        outputs: { total: 'total', text: 'text' },
      },
    ],
  },
  {
    username: 'bob',
    admin: false,
    blocks: [
      { id: 'parse', name: 'Parse JSON', kind: 'json.parse', settings: {} },
      { id: 'city', name: 'Get the city', kind: 'json.get', settings: { path: ['city'] } },
      { id: 'is-raining', name: 'Get the rain', kind: 'json.get', settings: { path: ['rain'] } },
      { id: 'choose', name: 'Choose by a condition', kind: 'logic.choose', settings: {} },
      { id: 'sentence', name: 'Join words', kind: 'text.join', settings: { separator: ' ' } },
    ],
    graphs: [
      {
        id: 'umbrella',
        name: 'Whether to take an umbrella',
        inputs: ['report'],
        nodes: [
          { id: 'report', blockId: 'parse', inputs: { text: { input: 'report' } } },
          { id: 'city', blockId: 'city', inputs: { value: { node: 'report' } } },
          { id: 'rain', blockId: 'is-raining', inputs: { value: { node: 'report' } } },
          {
            id: 'choice',
            blockId: 'choose',
            inputs: {
              condition: { node: 'rain' },
              yes: { literal: 'take an umbrella to' },
              no: { literal: 'leave the umbrella at home in' },
            },
          },
          {
            id: 'advice',
            blockId: 'sentence',
            inputs: { texts: { list: [{ node: 'choice' }, { node: 'city' }] } },
          },
        ],
        outputs: { advice: 'advice' },
      },
    ],
  },
  {
    username: 'admin',
    admin: true,
    blocks: [
      {
        id: 'report-line',
        name: 'A line of the report',
        kind: 'text.template',
        settings: { template: '{{count}} keys in use' },
      },
    ],
    graphs: [
      {
        id: 'report',
        name: 'The daily report',
        inputs: ['count'],
        nodes: [{ id: 'line', blockId: 'report-line', inputs: { count: { input: 'count' } } }],
        outputs: { report: 'line' },
      },
    ],
  },
]

/** Stores the users above, their graphs and their blocks, unless they are there already. */
export async function seed({ User, Graph, Block }: Database): Promise<void> {
  for (const { username, admin, graphs, blocks } of seeds) {
    const user =
      (await User.findOne({ where: { username } })) ??
      (await User.create({ username, admin, passwordHash: await hashPassword(username) }))

    const userId = user.id
    for (const block of blocks) {
      await Block.findOrCreate({ where: { id: block.id }, defaults: { ...block, userId } })
    }
    for (const graph of graphs) {
      await Graph.findOrCreate({ where: { id: graph.id }, defaults: { ...graph, userId } })
    }
  }
}
