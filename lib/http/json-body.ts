import { json, type Request, type Response } from 'express'

import { ApiKeysError, type ErrorCode } from '../errors'

const maxBytes = 32 * 1024

const parse = json({ limit: maxBytes, type: () => true })

/** What body-parser calls its errors, and what they are to us. */
const refusals: Record<string, ErrorCode> = {
  'entity.too.large': 'body_too_large',
  'entity.parse.failed': 'malformed_json',
  'request.size.invalid': 'malformed_json',
  'charset.unsupported': 'unsupported_media_type',
  'encoding.unsupported': 'unsupported_media_type',
}

/**
 * Returns the JSON of a request, `{}` where it has no body. It judges type and size by the headers, so that a form that
 * a parser of the app has read meanwhile does not pass for JSON.
 */
export async function readJsonBody(req: Request, res: Response): Promise<unknown> {
  const { 'content-length': length, 'transfer-encoding': encoding } = req.headers
  if (encoding === undefined && !Number(length)) return {}
  if (!req.is(['json', '+json'])) throw new ApiKeysError('unsupported_media_type')
  if (Number(length) > maxBytes) throw new ApiKeysError('body_too_large')

  await new Promise<void>((resolve, reject) => {
    parse(req, res, (error?: unknown) => (error ? reject(explain(error)) : resolve()))
  })
  return req.body
}

/** The parser's errors hold the body, and so go no further. */
function explain(error: unknown): unknown {
  const code = refusals[String((error as { type?: unknown }).type)]
  return code ? new ApiKeysError(code) : error
}
