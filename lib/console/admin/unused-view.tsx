import { InvalidInputError, type ApiKeysError } from '../../errors'
import { optionsOf } from '../calls'
import { problemFrom } from '../faults'
import { reasonIn, valueOf } from '../form'
import { keyCount } from '../pages/admin/owner-parts'
import { UnusedKeys, UnusedRevoked } from '../pages/admin/unused'
import type { Call, ConsoleParts, Route } from '../router'
import { ownerIn, ownerOf } from './owner-input'

/** The days without use that the form begins with. */
const usualDays = '90'

/** Creates the view that lists keys which are not in use, and revokes them. */
export function createUnusedView({ lifecycle, routeCommands, settings }: ConsoleParts): Route {
  const environments = settings.environments.names
  return {
    async show(call, refused?: ApiKeysError) {
      const { page, form } = call
      const { sections, fields } = page.texts.admin
      const labels = { ...fields, environment: page.texts.form.environment }
      const shared = { title: sections.unused, isWide: true, section: 'unused' } as const
      const props = { page, environments, wish: wishOf(call), reason: valueOf(form, 'reason') }
      const problem = refused && problemFrom(refused, page.texts, labels)
      try {
        const found = await routeCommands.unusedKeys(criteriaOf(call))
        return { ...shared, content: <UnusedKeys {...props} found={found} problem={problem} /> }
      } catch (error) {
        if (!(error instanceof InvalidInputError)) throw error
        const problem = problemFrom(error, page.texts, labels)
        const content = <UnusedKeys {...props} found={undefined} problem={problem} />
        return { ...shared, status: error.status, content }
      }
    },

    /** The answer says how many keys it revoked. Sent again, the form revokes what has come to be unused since. */
    async act(call) {
      const { page } = call
      const options = { ...optionsOf(call), ...reasonIn(call.form) }
      const { keys } = await lifecycle.revokeUnused(criteriaOf(call), options)
      return {
        title: page.texts.admin.unused.done(keyCount(page, keys)),
        section: 'unused',
        content: <UnusedRevoked page={page} keys={keys} days={wishOf(call).days} />,
      }
    },
  }
}

/** Returns what the user asks for, as it was typed. */
function wishOf(call: Call) {
  const { query, form } = call
  const isSent = form.size > 0
  const days = isSent ? valueOf(form, 'days') : (query.get('days') ?? usualDays)
  const environment = isSent ? valueOf(form, 'environment') : (query.get('environment') ?? '')
  return { ...ownerIn(call), days: days.trim(), environment }
}

/** Returns the same as the library takes it. It refuses text that is no number. */
function criteriaOf(call: Call) {
  const { days, environment, ...input } = wishOf(call)
  const owner = ownerOf(input)
  return {
    unusedForDays: days === '' ? NaN : Number(days),
    ...(owner && { owner }),
    ...(environment !== '' && { environment }),
  }
}
