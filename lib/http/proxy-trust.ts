import { warn } from '../../models/warnings'
import type { GuardedRequest } from './request'

/**
 * Makes what warns if the app believes whatever address a client sends: a key that is bound to addresses is of little worth
 * then. It looks once, as an app does not change this setting.
 */
export function createTrustCheck() {
  let isDone = false

  return function checkTrust(req: GuardedRequest) {
    if (isDone) return
    const { app } = req
    if (typeof app?.get !== 'function') return

    isDone = true
    if (app.get('trust proxy') !== true) return
    warn(
      'API_KEYS_TRUST_PROXY',
      "A key with allowedIps was used while Express's `trust proxy` is true, and so a client chooses its address itself. Set it to the number of proxies before the app, such as 1.",
    )
  }
}
