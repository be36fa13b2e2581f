import { noticeNames } from '../../lib/keys/emitter'
import { nextStatus, type Action } from '../../lib/keys/states'
import { statuses, type Status } from '../../models/api-key'
import { readPage, readmeSection, rowNames } from '../support/readme'
import { useWorld } from '../support/world'

const world = useWorld()

function outcomeOf(action: Action, status: Status): string {
  try {
    const next = nextStatus(action, { status, expiresAt: null })
    if (action === 'change' || action === 'rotate') return 'allowed'
    // It depends on the entry of the revocation, and on `undoMinutes`.
    if (action === 'unrevoke' && next !== status) return 'the status before or 409'
    return next === status ? 'no change' : next
  } catch {
    return '409'
  }
}

describe('the page of the lifecycle', () => {
  it('lists exactly the events that there are', () => {
    expect(rowNames(readmeSection('Events')).toSorted()).toEqual(noticeNames.toSorted())
  })

  it('lists only functions that exist, and every function for keys', () => {
    const listed = rowNames(readmeSection('Functions'))
    const types = readPage('lib/lifecycle/types.ts').split('export interface Lifecycle<')[1] ?? ''
    const functions = [...types.matchAll(/^ {2}(\w+)\(/gm)].map(([, name = '']) => name)

    expect(functions).toContain('revokeAll')
    expect(listed.toSorted()).toEqual([...functions, 'announceExpiring'].toSorted())
    expect(listed.filter((name) => typeof Reflect.get(world.apiKeys, name) !== 'function')).toEqual(
      [],
    )
  })
})

describe('the page of keys', () => {
  it('has the table of states', () => {
    const rows = [...readmeSection('States').matchAll(/^\| `([A-Z]+)` +\|(.*)\|$/gm)]
    const actions = ['suspend', 'reactivate', 'revoke', 'unrevoke', 'change', 'rotate'] as const

    expect(rows.map(([, status]) => status)).toEqual(statuses)
    for (const [index, status] of statuses.entries()) {
      const cells = rows[index]?.[2]?.split('|').map((cell) => cell.replaceAll('`', '').trim())
      expect(cells?.map((cell) => cell.split(',')[0])).toEqual(
        actions.map((action) => outcomeOf(action, status)),
      )
    }
  })
})
