import type { AnyRequest, ApiKeysError } from 'express-api-keys'
import type { Response } from 'express'

/** The types of errors in OpenAI's API, by status. */
const types: Record<number, string> = {
  401: 'authentication_error',
  403: 'permission_error',
  429: 'rate_limit_error',
}

/**
 * Answers refusals in the format of OpenAI's API, so that its clients read them: the option `onRefusal`. The headers stay, because clients
 * wait as long as `Retry-After` says.
 */
export function refuseAsOpenAi(error: ApiKeysError, _req: AnyRequest, res: Response): void {
  const { status, headers, code, message } = error
  const type = types[status] ?? (status < 500 ? 'invalid_request_error' : 'server_error')
  res
    .status(status)
    .set(headers)
    .json({ error: { message, type, param: null, code } })
}
