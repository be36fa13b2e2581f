import { hash } from 'node:crypto'

import { raw, type Request, type Response } from 'express'

import { ApiKeysError } from '../errors'
import { bodyLimits } from '../http/json-body'
import { clientAddressOf } from '../http/request'
import type { FailureLimit } from './call-limit'
import { objectsOf, type Report, type ReportOf } from './reporter'
import { createSignatureCheck } from './signatures'

interface GithubParts {
  github: { publicKeysUrl: string; token: string | undefined }
  /** Limits the reports that GitHub has not signed. */
  failures: FailureLimit
  reportOf: ReportOf
}

/**
 * Makes the handler of GitHub's secret scanning partner program. Its answer says of each token if it was a key, so that GitHub learns
 * to find fewer texts that are none.
 */
export function createGithubHandler({ github, failures, reportOf }: GithubParts) {
  const readSignature = createSignatureCheck(github)

  /** Returns the body of a report, once it is sure that GitHub has signed it. What costs least comes first. */
  async function readSigned(req: Request, res: Response): Promise<Buffer> {
    const address = clientAddressOf(req)
    failures.refuseIfMany(address)
    try {
      const checkBody = await readSignature({
        keyIdentifier: req.get('Github-Public-Key-Identifier'),
        signature: req.get('Github-Public-Key-Signature'),
      })
      const body = await readBytes(req, res)
      checkBody(body)
      return body
    } catch (error) {
      if (error instanceof ApiKeysError && error.status < 500) await failures.countFailure(address)
      throw error
    }
  }

  return async function takeReport(req: Request, res: Response) {
    const body = await readSigned(req, res)
    const matches = readMatches(body)
    const isKey = await reportOf(req)(matches, 'reported by the secret scanning of GitHub')
    res.json(
      matches.map(({ token, type }, at) => ({
        token_hash: hash('sha256', token),
        token_type: type,
        label: isKey[at] === true ? 'true_positive' : 'false_positive',
      })),
    )
  }
}

/** Reads the matches of a report. Types and sources that are not known yet are fine. */
function readMatches(body: Buffer): (Report & { type: string })[] {
  const matches = objectsOf(parseJson(body))
  if (!matches) throw new ApiKeysError('malformed_report')
  return matches.map(({ token, type, url, source }) => {
    if (typeof token !== 'string') throw new ApiKeysError('malformed_report')
    const isNamed = typeof source === 'string' && /^\w{1,50}$/.test(source)
    return {
      token,
      type: typeof type === 'string' ? type : '',
      url: typeof url === 'string' ? url : null,
      source: isNamed ? `github:${source.toLowerCase()}` : 'github',
    }
  })
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch {
    return null
  }
}

const parseRaw = raw({ limit: bodyLimits.manyKeys, type: () => true, inflate: false })

/** Returns the bytes of a body, over which the signature is: read now, or kept by a parser of the app. */
async function readBytes(req: Request, res: Response): Promise<Buffer> {
  await new Promise<void>((resolve, reject) => {
    parseRaw(req, res, (error?: unknown) => (error ? reject(explain(error)) : resolve()))
  })
  const { rawBody, body } = req as { rawBody?: unknown; body?: unknown }
  const bytes = rawBody ?? body
  if (Buffer.isBuffer(bytes)) return bytes
  if (typeof bytes === 'string') return Buffer.from(bytes)
  // A request without a body.
  if (body === undefined || Object.keys(Object(body)).length === 0) return Buffer.alloc(0)
  throw new TypeError(
    'leakRouter: a parser of the app has read the body, and the signature of GitHub is over its bytes. Mount the router before express.json(), or keep the bytes as req.rawBody.',
  )
}

/** Replaces an error of the parser, because it holds the body. */
function explain(error: unknown): unknown {
  const { status } = Object(error) as { status?: unknown }
  if (status === 413) {
    return new ApiKeysError('body_too_large', undefined, 'The body is larger than 4 MB.')
  }
  return typeof status === 'number' && status < 500 ? new ApiKeysError('malformed_report') : error
}
