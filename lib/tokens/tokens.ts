import { refuseRequest } from '../http/guard-options'
import { createMcpVerifier, type McpParts } from './mcp-verifier'
import { createTokenRouter, type TokenParts } from './token-router'

/** Makes the functions that answer other software about keys. */
export function createTokens(parts: TokenParts & McpParts) {
  return {
    tokenRouter(options?: unknown) {
      refuseRequest('tokenRouter', options)
      return createTokenRouter(parts, options)
    },
    mcpVerifier: (options?: unknown) => createMcpVerifier(parts, options),
  }
}
