import type { Database } from './database'
import { hashPassword } from './passwords'

/** The first users with their blocks and graphs. Each password is the username. */
const seeds = [
  {
    user: { username: 'alice', admin: false },
    blocks: [
      block('greet', 'Greet a person', 'text.template', { template: 'Hello, {{name}}!' }),
      block('shout', 'Shout', 'text.uppercase'),
    ],
    graphs: [graph('greeting', 'A loud greeting', ['name'], ['greet', 'shout'])],
  },
  {
    user: { username: 'bob', admin: false },
    blocks: [
      block('advise', 'Advise', 'text.template', { template: 'Take an umbrella to {{city}}' }),
      block('whisper', 'Whisper', 'text.lowercase'),
    ],
    graphs: [graph('umbrella', 'Quiet advice', ['city'], ['advise', 'whisper'])],
  },
  {
    user: { username: 'admin', admin: true },
    blocks: [block('line', 'A line', 'text.template', { template: '{{count}} keys in use' })],
    graphs: [graph('report', 'The daily report', ['count'], ['line'])],
  },
]

function block(id: string, name: string, kind: string, settings: Record<string, string> = {}) {
  return { id, name, kind, settings }
}

function graph(id: string, name: string, inputs: string[], blocks: string[]) {
  return { id, name, inputs, blocks }
}

/** Stores the first users, their blocks and their graphs, unless the database has them already. */
export async function seed({ User, Graph, Block }: Database): Promise<void> {
  for (const { user, blocks, graphs } of seeds) {
    const { username } = user
    const { id: userId } =
      (await User.findOne({ where: { username } })) ??
      (await User.create({ ...user, passwordHash: await hashPassword(username) }))

    for (const row of blocks) {
      await Block.findOrCreate({ where: { id: row.id }, defaults: { ...row, userId } })
    }
    for (const row of graphs) {
      await Graph.findOrCreate({ where: { id: row.id }, defaults: { ...row, userId } })
    }
  }
}
