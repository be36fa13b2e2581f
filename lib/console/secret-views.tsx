import { ApiKeysError } from '../errors'
import { optionsOf, exceeds } from './calls'
import { problemFrom } from './faults'
import { reasonIn, valueOf } from './form'
import { EndRotation, Revoke, Rotate } from './pages/confirm'
import { newRequest, requestIn } from './request-name'
import { revealOnce } from './reveal'
import type { ConsoleParts, Route } from './router'

/** The graces that the form for a new secret offers: none, an hour, a day, a week, 30 days. */
const graces = [0, 3_600, 86_400, 604_800, 2_592_000]
const defaultGrace = 86_400

/** Creates the views that give a key a new secret, end its old secret, and revoke it. */
export function createSecretViews(parts: ConsoleParts) {
  const { lifecycle, settings } = parts
  const most = settings.maxGracePeriodSeconds
  const offered = graces.filter((seconds) => seconds <= most)

  const rotate: Route = {
    async show(call, refused) {
      const { page, form } = call
      const apiKey = await lifecycle.get(call.keyId, optionsOf(call))
      if (exceeds(apiKey, call.member, parts)) throw new ApiKeysError('exceeds_access')
      const { rotate } = page.texts
      const labels = { gracePeriodSeconds: rotate.grace, activate: rotate.activate }
      const content = (
        <Rotate
          page={page}
          apiKey={apiKey}
          problem={refused && problemFrom(refused, page.texts, labels)}
          graces={offered}
          grace={valueOf(form, 'grace') || String(Math.min(defaultGrace, most))}
          activate={valueOf(form, 'activate') || 'now'}
          request={refused ? newRequest().name : requestIn(form).name}
        />
      )
      return { title: rotate.title(apiKey.name), content }
    },

    async act(call) {
      const { form } = call
      const gracePeriodSeconds = Number(valueOf(form, 'grace') || NaN)
      const wish = {
        gracePeriodSeconds,
        // The input is parsed by the rules of the app.
        activate: (valueOf(form, 'activate') || 'now') as 'now',
        idempotencyKey: requestIn(form).name,
        answersAgain: false,
      }
      return revealOnce(call, 'rotated', () =>
        lifecycle.rotate(call.keyId, { ...optionsOf(call), ...wish }),
      )
    },
  }

  const endRotation: Route = {
    async show(call, refused) {
      const { page } = call
      const apiKey = await lifecycle.get(call.keyId, optionsOf(call))
      const problem = refused && problemFrom(refused, page.texts, {})
      const content = <EndRotation page={page} apiKey={apiKey} problem={problem} />
      return { title: page.texts.endRotation.title(apiKey.name), content }
    },

    async act(call) {
      const { id } = await lifecycle.endRotation(call.keyId, optionsOf(call))
      return { location: call.page.to(`${id}?notice=rotation-ended`) }
    },
  }

  const revoke: Route = {
    async show(call, refused) {
      const { page, form } = call
      const { revoke } = page.texts
      const apiKey = await lifecycle.get(call.keyId, optionsOf(call))
      const problem = refused && problemFrom(refused, page.texts, { reason: revoke.reason })
      const reason = valueOf(form, 'reason')
      const content = <Revoke page={page} apiKey={apiKey} problem={problem} reason={reason} />
      return { title: revoke.title(apiKey.name), content }
    },

    async act(call) {
      const options = { ...optionsOf(call), ...reasonIn(call.form) }
      const { id } = await lifecycle.revoke(call.keyId, options)
      return { location: call.page.to(`${id}?notice=revoked`) }
    },
  }

  return { rotate, endRotation, revoke }
}
