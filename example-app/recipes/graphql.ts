import express, { type Express } from 'express'
import { buildSchema, GraphQLError } from 'graphql'
import { createHandler } from 'graphql-http/lib/use/express'

import type { Keys } from './api-keys'

// graphql-http takes no interface.
// oxlint-disable-next-line typescript/consistent-type-definitions
type Context = { apiKey: ReturnType<Keys['getApiKey']> }

const schema = buildSchema(`
  type Query { me: String! }
  type Mutation { execute(graph: ID!): String! }
`)

/** Serves GraphQL. The route takes any good key; each field demands its own permission. */
export function createGraphQl(apiKeys: Keys): Express {
  const rootValue = {
    me: (_args: object, { apiKey }: Context) => apiKey.userId,

    execute({ graph }: { graph: string }, { apiKey }: Context) {
      if (!apiKeys.hasPermission(apiKey, 'EXECUTE_GRAPH')) {
        const code = 'missing_permission'
        throw new GraphQLError('The API key does not have the permission that this needs.', {
          extensions: { code, missing: ['EXECUTE_GRAPH'] },
        })
      }
      return `executed ${graph}`
    },
  }
  const handler = createHandler<Context>({
    schema,
    rootValue,
    context: ({ raw }) => ({ apiKey: apiKeys.getApiKey(raw) }),
  })

  const app = express()
  app.all('/graphql', apiKeys.authenticate(), handler)
  return app
}
