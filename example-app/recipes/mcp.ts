import type { AuthInfo } from '@modelcontextprotocol/sdk/server/auth/types.js'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import express, { type Express } from 'express'

import type { Keys } from './api-keys'

type Caller = ReturnType<Keys['getApiKey']>

/** Serves the Model Context Protocol over HTTP, without sessions: each request has a key, and so a caller of its own. */
export function createMcp(apiKeys: Keys): Express {
  const app = express()

  // The option puts the caller on the request as `req.auth`, from which the transport takes it.
  app.post('/mcp', apiKeys.authenticate({ mcp: true }), express.json(), async (req, res) => {
    const transport = new StreamableHTTPServerTransport({})
    const server = createServer(apiKeys.getApiKey(req))
    res.on('close', () => void server.close())
    await server.connect(transport)
    await transport.handleRequest(req, res, req.body)
  })

  return app

  /** A tool for which the key lacks the permission does not exist for this caller. */
  function createServer(caller: Caller): McpServer {
    const server = new McpServer({ name: 'acme', version: '1.0.0' })

    server.registerTool('whoami', { description: 'Says who calls' }, ({ authInfo }) =>
      say(callerOf(authInfo).userId),
    )
    if (apiKeys.hasPermission(caller, 'EXECUTE_GRAPH')) {
      server.registerTool('execute', { description: 'Executes the graph' }, () => say('executed'))
    }
    return server
  }
}

/** Returns the key of the request that calls a tool, without its plain text. */
function callerOf(authInfo: AuthInfo | undefined): Caller {
  return authInfo?.extra?.apiKey as Caller
}

function say(text: string) {
  return { content: [{ type: 'text' as const, text }] }
}
