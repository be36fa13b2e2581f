import { isUtf8 } from 'node:buffer'
import type { IncomingMessage, ServerResponse } from 'node:http'

import { json, type Request, type Response } from 'express'

import { ApiKeysError, type ErrorCode } from '../errors'
import { isPlainObject } from '../keys/metadata'

const maxBytes = 32 * 1024

// Text or a number is JSON too; that it is no object is for the rules to say.
const parse = json({ limit: maxBytes, type: () => true, strict: false, verify: refuseBrokenText })

/** Decoded, it would be something else than what was sent. (RFC 8259, section 8.1) */
function refuseBrokenText(_: IncomingMessage, __: ServerResponse, body: Buffer, charset: string) {
  if (charset === 'utf-8' && !isUtf8(body)) {
    throw Object.assign(new Error('not UTF-8'), { status: 400 })
  }
}

/** The statuses of body-parser's errors, and what they are to us. */
const refusals: Record<number, ErrorCode> = {
  400: 'malformed_json',
  413: 'body_too_large',
  415: 'unsupported_media_type',
}

/**
 * Returns the JSON of a request, `{}` if it has no body. It judges type and size by the headers, so that a form that a
 * parser of the app has read meanwhile does not pass for JSON.
 */
export async function readJsonBody(req: Request, res: Response): Promise<unknown> {
  const { 'content-length': length, 'transfer-encoding': encoding } = req.headers
  if (encoding === undefined && !Number(length)) return {}

  const isSized = encoding === undefined
  if (!req.is(['json', '+json'])) {
    // In chunks, only reading tells whether there is a body.
    if (!isSized && !(await hasContent(req))) return {}
    throw new ApiKeysError('unsupported_media_type')
  }
  if (Number(length) > maxBytes) throw new ApiKeysError('body_too_large')

  const kept: unknown = req.body
  if (typeof kept === 'string' || Buffer.isBuffer(kept)) {
    return kept.length === 0 && !isSized ? {} : parseKept(kept)
  }

  await new Promise<void>((resolve, reject) => {
    parse(req, res, (error?: unknown) => (error ? reject(explain(error)) : resolve()))
  })
  return req.body
}

/** True if the body of a request has bytes, as far as a parser of the app has read it or by its first bytes. */
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

/** A parser of the app keeps every body as it came, for example to check the signatures of webhooks. */
function parseKept(body: string | Buffer): unknown {
  if (Buffer.isBuffer(body) && !isUtf8(body)) throw new ApiKeysError('malformed_json')
  try {
    return JSON.parse(String(body))
  } catch {
    throw new ApiKeysError('malformed_json')
  }
}

/** The parser's errors hold the body, and so go no further. */
function explain(error: unknown): unknown {
  const code = refusals[Number((error as { status?: unknown }).status)]
  return code ? new ApiKeysError(code) : error
}
