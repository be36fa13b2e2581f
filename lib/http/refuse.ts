import type { NextFunction, Request, Response } from 'express'

import { ApiKeysError } from '../errors'
import type { Settings } from '../options'
import { sendProblem, toRefusal } from './problems'

/** Answers a refusal, or has the app answer it; passes on to the app what is no refusal of ours. */
export type Refuse = (error: unknown, req: Request, res: Response, next: NextFunction) => void

export function createRefuse({ realm, onRefusal }: Pick<Settings, 'realm' | 'onRefusal'>): Refuse {
  return function refuse(error, req, res, next) {
    if (!(error instanceof ApiKeysError)) return next(error)

    const refusal = toRefusal(error, realm)
    if (!onRefusal) return sendProblem(res, refusal)

    try {
      onRefusal(refusal, req, res, next)
    } catch (failure) {
      next(failure)
    }
  }
}
