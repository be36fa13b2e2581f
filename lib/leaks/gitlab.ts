import { hash, timingSafeEqual } from 'node:crypto'

import type { Request, Response } from 'express'

import { ApiKeysError } from '../errors'
import { readJsonBody } from '../http/json-body'
import { objectsOf, type Report, type ReportOf } from './reporter'

interface GitlabParts {
  gitlab: { token: string; types: readonly string[] }
  countCall(req: Request): void
  reportOf: ReportOf
}

/** How many tokens a call may report. */
const mostTokens = 1_000

/** Makes the two handlers of GitLab's Token Revocation API (docs.gitlab.com, development/sec/token_revocation_api). */
export function createGitlabHandlers({ gitlab, countCall, reportOf }: GitlabParts) {
  const wanted = hash('sha256', gitlab.token, 'buffer')

  /** Throws unless a request has the token that both sides know, by itself as GitLab sends it, or as a bearer token. */
  function authenticate(req: Request) {
    countCall(req)
    const sent = (req.get('Authorization') ?? '').replace(/^bearer +/i, '')
    if (!timingSafeEqual(hash('sha256', sent, 'buffer'), wanted)) {
      throw new ApiKeysError('invalid_report_token')
    }
  }

  return {
    async listTypes(req: Request, res: Response) {
      authenticate(req)
      res.json({ types: gitlab.types })
    },

    async revokeTokens(req: Request, res: Response) {
      authenticate(req)
      const tokens = await readTokens(req, res)
      await reportOf(req)(tokens, 'reported by the secret detection of GitLab')
      res.status(204).end()
    },
  }
}

/** Reads the tokens of a call. A key is refused whatever its type is. Each fault of the input is 400, as GitLab wants it. */
async function readTokens(req: Request, res: Response): Promise<Report[]> {
  const tokens = objectsOf(await readJsonBody(req, res, 'manyKeys'))
  if (!tokens || tokens.length > mostTokens) throw new ApiKeysError('malformed_report')
  return tokens.map(({ token, location }) => {
    if (typeof token !== 'string') throw new ApiKeysError('malformed_report')
    return { token, source: 'gitlab', url: typeof location === 'string' ? location : null }
  })
}
