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

/** The first organization. Its blocks and graphs belong to no user. */
const acme = {
  organization: { id: 'acme', name: 'Acme' },
  members: [
    { username: 'alice', isManager: true },
    { username: 'bob', isManager: false },
  ],
  blocks: [block('invite', 'Invite', 'text.template', { template: 'Welcome to Acme, {{name}}!' })],
  graphs: [graph('welcome', 'A welcome to Acme', ['name'], ['invite'])],
}

function block(id: string, name: string, kind: string, settings: Record<string, string> = {}) {
  return { id, name, kind, settings }
}

function graph(id: string, name: string, inputs: string[], blocks: string[]) {
  return { id, name, inputs, blocks }
}

/** Stores the first users and the first organization with their blocks and graphs, unless the database has them already. */
export async function seed(database: Database): Promise<void> {
  const { User, Organization, Membership } = database
  for (const { user, blocks, graphs } of seeds) {
    const { username } = user
    const { id: userId } =
      (await User.findOne({ where: { username } })) ??
      (await User.create({ ...user, passwordHash: await hashPassword(username) }))

    await seedRows(database, { userId }, { blocks, graphs })
  }

  const { organization, members, ...rows } = acme
  const { id: organizationId } = organization
  await Organization.findOrCreate({ where: { id: organizationId }, defaults: organization })
  for (const { username, isManager } of members) {
    const { id: userId } = await User.findOne({ where: { username }, rejectOnEmpty: true })
    await Membership.findOrCreate({
      where: { organizationId, userId },
      defaults: { organizationId, userId, isManager },
    })
  }
  await seedRows(database, { organizationId }, rows)
}

/** Stores the blocks and graphs of an owner. */
async function seedRows(
  { Graph, Block }: Database,
  owner: { userId: string } | { organizationId: string },
  { blocks, graphs }: Pick<(typeof seeds)[number], 'blocks' | 'graphs'>,
): Promise<void> {
  for (const row of blocks) {
    await Block.findOrCreate({ where: { id: row.id }, defaults: { ...row, ...owner } })
  }
  for (const row of graphs) {
    await Graph.findOrCreate({ where: { id: row.id }, defaults: { ...row, ...owner } })
  }
}
