import { show } from '../../models/option-checks'

/** The errors that the SDK has for callers, as far as a verifier of keys needs them. */
export interface McpErrors {
  InvalidTokenError: new (message: string) => Error
  TooManyRequestsError: new (message: string) => Error
}

const folder = '@modelcontextprotocol/sdk/server/auth'

/**
 * Returns the function that loads the errors of the SDK: those that the app gives, else those beside the `requireBearerAuth` that the process
 * has loaded. The SDK has its classes twice, for `require` and for `import`, and knows an error by `instanceof` alone.
 */
export function readMcpErrors(given: unknown): () => Promise<McpErrors> {
  if (given === undefined) return findErrors()
  const { InvalidTokenError, TooManyRequestsError } = Object(given) as Partial<McpErrors>
  if (typeof InvalidTokenError === 'function' && typeof TooManyRequestsError === 'function') {
    return async () => ({ InvalidTokenError, TooManyRequestsError })
  }
  throw new TypeError(
    `mcpVerifier: errors must be those of the SDK, import * as errors from '${folder}/errors.js', got ${show(given)}`,
  )
}

function findErrors(): () => Promise<McpErrors> {
  const middleware = findMiddleware()
  // The first key is judged after the app has loaded all that it needs.
  return async () => {
    // A bundler lets a package be missing only if the app catches its absence.
    try {
      return middleware in require.cache
        ? require('@modelcontextprotocol/sdk/server/auth/errors.js')
        : await import('@modelcontextprotocol/sdk/server/auth/errors.js')
    } catch (cause) {
      throw missing(cause)
    }
  }
}

/** Returns the file of `requireBearerAuth` that `require` loads. */
function findMiddleware(): string {
  try {
    return require.resolve('@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js')
  } catch (cause) {
    throw missing(cause)
  }
}

function missing(cause: unknown): TypeError {
  return new TypeError(
    `mcpVerifier: finds no @modelcontextprotocol/sdk beside it. Pass the errors of yours: import * as errors from '${folder}/errors.js'`,
    { cause },
  )
}
