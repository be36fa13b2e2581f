import type { Client } from 'pg'
import type { Options } from 'sequelize'

import type { Database } from './database'

/** A step of a query plan of `EXPLAIN (FORMAT JSON)`. */
interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Rows Removed by Filter'?: number
  'Rows Removed by Index Recheck'?: number
  Plans?: PlanNode[]
}

/** The tables that grow. Postgres reads a table of a few rows as a whole, whatever its indexes. */
const growing = new Set([
  'api_keys',
  'api_key_events',
  'api_key_event_seals',
  'api_key_revisions',
  'api_key_changes',
  'api_key_usage',
])

export type Plans = ReturnType<typeof readPlans>

/**
 * Connects, and reads the plans of the statements that the connections run, and of the statements of functions and triggers: of all, or of
 * those whose text fits.
 */
export function readPlans(
  database: Database,
  { fits = () => true, ...options }: Options & { fits?: (text: string) => boolean } = {},
) {
  let plans: PlanNode[] = []

  const sequelize = database.connect({
    ...options,
    hooks: {
      async afterConnect(connection) {
        const client = connection as Client
        client.on('notice', ({ message = '' }) => {
          if (!message.includes('plan:')) return

          const { Plan: plan, 'Query Text': text } = JSON.parse(message.slice(message.indexOf('{')))
          if (fits(text)) plans.push(plan)
        })
        await client.query(`
          LOAD 'auto_explain';
          SET auto_explain.log_min_duration = 0;
          SET auto_explain.log_format = json;
          SET auto_explain.log_level = notice;
          SET auto_explain.log_analyze = on;
          SET auto_explain.log_nested_statements = on;
          SET client_min_messages = notice`)
      },
    },
  })

  /** The steps that read tables that grow. */
  function readings(): PlanNode[] {
    const nodes = plans.flatMap(withChildren)
    return nodes.filter((node) => growing.has(node['Relation Name'] ?? ''))
  }

  return {
    sequelize,

    /** Drops the plans so far. */
    forget() {
      plans = []
    },

    tablesReached() {
      return new Set(readings().map((node) => node['Relation Name']))
    },

    tablesReadWhole() {
      const whole = readings().filter((node) => node['Node Type'] === 'Seq Scan')
      return whole.map((node) => node['Relation Name'])
    },

    /** The number of rows that were read for nothing. */
    countRowsInVain() {
      return readings().reduce((count, node) => {
        const {
          'Rows Removed by Filter': filtered = 0,
          'Rows Removed by Index Recheck': rechecked = 0,
        } = node
        return count + filtered + rechecked
      }, 0)
    },
  }
}

function withChildren(node: PlanNode): PlanNode[] {
  return [node, ...(node.Plans ?? []).flatMap(withChildren)]
}
