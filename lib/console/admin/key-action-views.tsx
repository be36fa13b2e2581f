import { optionsOf } from '../calls'
import { problemFrom } from '../faults'
import { reasonIn, valueOf } from '../form'
import { Suspend, Transfer } from '../pages/admin/key-actions'
import type { ConsoleParts, Route } from '../router'
import { ownerIn, ownerOf } from './owner-input'

/** Creates the views in which administrators suspend a key, and hand it on to another owner. */
export function createKeyActionViews({ lifecycle }: ConsoleParts) {
  const suspend: Route = {
    async show(call, refused) {
      const { page, form } = call
      const { admin } = page.texts
      const apiKey = await lifecycle.get(call.keyId, optionsOf(call))
      const problem = refused && problemFrom(refused, page.texts, admin.fields)
      const props = { page, apiKey, problem, reason: valueOf(form, 'reason') }
      return { title: admin.suspend.title(apiKey.name), content: <Suspend {...props} /> }
    },

    async act(call) {
      const options = { ...optionsOf(call), ...reasonIn(call.form) }
      const { id } = await lifecycle.suspend(call.keyId, options)
      return { location: call.page.to(`${id}?notice=suspended`) }
    },
  }

  const transfer: Route = {
    async show(call, refused) {
      const { page, form } = call
      const { admin } = page.texts
      const apiKey = await lifecycle.get(call.keyId, optionsOf(call))
      const problem = refused && problemFrom(refused, page.texts, admin.fields)
      const props = { page, apiKey, problem, reason: valueOf(form, 'reason') }
      return {
        title: admin.transfer.title(apiKey.name),
        content: <Transfer {...props} to={ownerIn(call)} />,
      }
    },

    async act(call) {
      const options = { ...optionsOf(call), ...reasonIn(call.form) }
      const { id } = await lifecycle.transfer(call.keyId, ownerOf(ownerIn(call)), options)
      return { location: call.page.to(`${id}?notice=transferred`) }
    },
  }

  return { suspend, transfer }
}
