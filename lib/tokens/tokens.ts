import { refuseRequest } from '../http/guard-options'
import { createMcpVerifier, type McpParts } from './mcp-verifier'
import type * as tokenRoutes from './token-router'

/** Makes the functions that answer other software about keys. */
export function createTokens(parts: tokenRoutes.TokenParts & McpParts) {
  return {
    tokenRouter(options?: unknown) {
      refuseRequest('tokenRouter', options)
      // Most processes have no such routes, and load neither them nor Express.
      const { createTokenRouter } = require('./token-router') as typeof tokenRoutes
      return createTokenRouter(parts, options)
    },
    mcpVerifier: (options?: unknown) => createMcpVerifier(parts, options),
  }
}
