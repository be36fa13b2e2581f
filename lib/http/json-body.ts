import { isUtf8 } from 'node:buffer'
import type { IncomingMessage, ServerResponse } from 'node:http'

import { json, type Request, type Response } from 'express'

import { ApiKeysError, type ErrorCode } from '../errors'
import { isPlainObject } from '../keys/metadata'

/** How many bytes a body may have. */
export const bodyLimits = { usual: 32 * 1024, manyKeys: 4 * 1024 * 1024 } as const

const parseUsual = parserUpTo(bodyLimits.usual)
const parseManyKeys = parserUpTo(bodyLimits.manyKeys)

/** Text or a number is JSON too. The parsers of input say that it is not an object. */
function parserUpTo(limit: number) {
  return json({ limit, type: () => true, strict: false, verify: refuseBrokenText })
}

/** Refuses a body that is not UTF-8 (RFC 8259, section 8.1), because decoding would change it. */
function refuseBrokenText(_: IncomingMessage, __: ServerResponse, body: Buffer, charset: string) {
  if (charset === 'utf-8' && !isUtf8(body)) {
    throw Object.assign(new Error('not UTF-8'), { status: 400 })
  }
}

/** The refusals for the statuses of body-parser's errors. */
const refusals: Record<number, ErrorCode> = {
  400: 'malformed_json',
  413: 'body_too_large',
  415: 'unsupported_media_type',
}

/**
 * Returns the JSON of a request, `{}` if it has no body. The headers decide about type and size, so that a form that a parser of
 * the app has read does not pass for JSON.
 */
export async function readJsonBody(
  req: Request,
  res: Response,
  limit: keyof typeof bodyLimits = 'usual',
): Promise<unknown> {
  const { 'content-length': length, 'transfer-encoding': encoding } = req.headers
  if (encoding === undefined && !Number(length)) return {}

  const isSized = encoding === undefined
  if (!req.is(['json', '+json'])) {
    // If it comes in chunks, only reading shows if there is a body.
    if (!isSized && !(await hasContent(req))) return {}
    throw new ApiKeysError('unsupported_media_type')
  }
  if (Number(length) > bodyLimits[limit]) throw tooLarge(limit)

  const kept: unknown = req.body
  if (typeof kept === 'string' || Buffer.isBuffer(kept)) {
    return kept.length === 0 && !isSized ? {} : parseKept(kept)
  }

  await new Promise<void>((resolve, reject) => {
    const parse = limit === 'usual' ? parseUsual : parseManyKeys
    parse(req, res, (error?: unknown) => (error ? reject(explain(error, limit)) : resolve()))
  })
  return req.body
}

/** True if the body of a request has bytes. It uses the body that a parser of the app has read, or reads it. */
async function hasContent(req: Request): Promise<boolean> {
  const kept: unknown = req.body
  if (typeof kept === 'string' || Buffer.isBuffer(kept)) return kept.length > 0
  if (req.readableEnded) return !isPlainObject(kept) || Object.keys(kept).length > 0

  return new Promise((resolve, reject) => {
    function settle(settleWith: () => void) {
      req.off('readable', read).off('end', end).off('close', fail).off('error', fail)
      settleWith()
    }
    function read() {
      if (req.read() !== null) settle(() => resolve(true))
    }
    const end = () => settle(() => resolve(false))
    const fail = () => settle(() => reject(new ApiKeysError('malformed_json')))
    req.on('readable', read).on('end', end).on('close', fail).on('error', fail)
  })
}

/** Parses a body that a parser of the app has kept unparsed, for example to check the signatures of webhooks. */
function parseKept(body: string | Buffer): unknown {
  if (Buffer.isBuffer(body) && !isUtf8(body)) throw new ApiKeysError('malformed_json')
  try {
    return JSON.parse(String(body))
  } catch {
    throw new ApiKeysError('malformed_json')
  }
}

/** Replaces an error of the parser, because it holds the body. */
function explain(error: unknown, limit: keyof typeof bodyLimits): unknown {
  const code = refusals[Number((error as { status?: unknown }).status)]
  if (code === 'body_too_large') return tooLarge(limit)
  return code ? new ApiKeysError(code) : error
}

function tooLarge(limit: keyof typeof bodyLimits): ApiKeysError {
  const sentence = limit === 'manyKeys' ? 'The body is larger than 4 MB.' : undefined
  return new ApiKeysError('body_too_large', undefined, sentence)
}
