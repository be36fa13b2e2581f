import { hash, timingSafeEqual } from 'node:crypto'

import type { Request, Response } from 'express'

import { ApiKeysError } from '../errors'
import { readJsonBody } from '../http/json-body'
import { objectsOf, type Report, type ReportOf } from './reporter'

interface GitlabParts {
  gitlab: { token: string; types: readonly string[] }
  countCall(req: Request): Promise<void>
  reportOf: ReportOf
}

/** How many tokens a call may report. */
const mostTokens = 1_000

/** Makes the two handlers of GitLab's Token Revocation API (docs.gitlab.com, development/sec/token_revocation_api). */
export function createGitlabHandlers({ gitlab, countCall, reportOf }: GitlabParts) {
  const wanted = hash('sha256', gitlab.token, 'buffer')

  /** Throws unless a request has the token that both sides know, by itself as GitLab sends it, or as a bearer token. */
  async function authenticate(req: Request) {
    await countCall(req)
    const sent = (req.get('Authorization') ?? '').replace(/^bearer +/i, '')
    if (!timingSafeEqual(hash('sha256', sent, 'buffer'), wanted)) {
      throw new ApiKeysError('invalid_report_token')
    }
  }

  return {
    async listTypes(req: Request, res: Response) {
      await authenticate(req)
      res.json({ types: gitlab.types })
    },

    async revokeTokens(req: Request, res: Response) {
      await authenticate(req)
      const tokens = await readTokens(req, res)
      await reportOf(req)(tokens, 'reported by the secret detection of GitLab')
      // A key that was found is refused whatever its type is. The types of the answer to the other route are all that are taken.
      if (!tokens.every(({ type }) => gitlab.types.includes(type))) {
        throw new ApiKeysError('unsupported_token_type')
      }
      res.status(204).end()
    },
  }
}

/** Reads the tokens of a call. Each fault of the input is 400, as GitLab wants it. */
async function readTokens(req: Request, res: Response): Promise<(Report & { type: string })[]> {
  const tokens = objectsOf(await readJsonBody(req, res, 'manyKeys'))
  if (!tokens || tokens.length > mostTokens) throw new ApiKeysError('malformed_report')
  return tokens.map(({ token, type, location }) => {
    if (typeof token !== 'string') throw new ApiKeysError('malformed_report')
    const isNamed = typeof type === 'string'
    return {
      token,
      type: isNamed ? type : '',
      source: 'gitlab',
      url: typeof location === 'string' ? location : null,
    }
  })
}
