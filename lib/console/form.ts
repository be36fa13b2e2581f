import { isUtf8 } from 'node:buffer'

import { urlencoded, type Request, type Response } from 'express'

import { ApiKeysError } from '../errors'
import { isPlainObject } from '../keys/metadata'

/** The fields of a form that was sent: each with its values, in their order. */
export type Form = ReadonlyMap<string, readonly string[]>

const limit = 32 * 1024
const parse = urlencoded({ limit, extended: false, type: () => true })

/** The refusals for the statuses of body-parser's errors. */
const codes: Record<number, 'body_too_large' | 'unsupported_media_type'> = {
  413: 'body_too_large',
  415: 'unsupported_media_type',
}

/** Returns the fields of a form, whether a parser of the app has read it or not. */
export async function readForm(req: Request, res: Response): Promise<Form> {
  const { 'content-length': length, 'transfer-encoding': encoding } = req.headers
  if (encoding === undefined && !Number(length)) return new Map()
  if (!req.is('application/x-www-form-urlencoded')) throw new ApiKeysError('unsupported_media_type')

  const kept: unknown = req.body
  if (typeof kept === 'string' || Buffer.isBuffer(kept)) return fieldsOfText(kept)
  await new Promise<void>((resolve, reject) => {
    parse(req, res, (error?: unknown) => (error ? reject(explain(error)) : resolve()))
  })
  return fieldsOf(isPlainObject(req.body) ? req.body : Object(req.body))
}

function fieldsOfText(text: string | Buffer): Form {
  if (text.length > limit) throw new ApiKeysError('body_too_large')
  if (Buffer.isBuffer(text) && !isUtf8(text)) throw new ApiKeysError('unsupported_media_type')
  const fields = new URLSearchParams(String(text))
  return new Map([...new Set(fields.keys())].map((name) => [name, fields.getAll(name)]))
}

/** Makes lists of values. A parser of the app may have made an object of a long list. */
function fieldsOf(body: object): Form {
  return new Map(
    Object.entries(body).map(([name, value]: [string, unknown]) => {
      const values = typeof value === 'object' && value !== null ? Object.values(value) : [value]
      return [name, values.filter((each) => typeof each === 'string')]
    }),
  )
}

/** Replaces an error of the parser, because it holds the body. */
function explain(error: unknown): unknown {
  const code = codes[Number((error as { status?: unknown }).status)]
  return code ? new ApiKeysError(code) : error
}

/** Returns the first value of a field; an empty text if there is none. Browsers send lines with CRLF. */
export function valueOf(form: Form, name: string): string {
  return (form.get(name)?.[0] ?? '').replaceAll('\r\n', '\n')
}

/** Returns the reason of a change, as functions of the library take it. */
export function reasonIn(form: Form): { reason?: string } {
  const reason = valueOf(form, 'reason').trim()
  return reason === '' ? {} : { reason }
}
