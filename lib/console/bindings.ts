import type { Resources } from '../keys/resources'
import { valueOf, type Form } from './form'

/** The ids of a type of resources, as a form has them. */
export interface BindingValues {
  type: string
  /** An id in each line. */
  ids: string
  /** True if the key is bound to no resource of the type, which is not the same as no text. */
  isNone: boolean
}

/** The names of the fields of a type of resources. */
export const bindingFields = (type: string) => ({ ids: `ids.${type}`, none: `none.${type}` })

/** The field with what the key was bound to when the form was made. */
export const boundBefore = 'boundBefore'

/** Returns what the form of a key shows. It also has types to which the key is bound and which the app no longer has. */
export function bindingsOf(resources: Resources | null, types: Iterable<string>): BindingValues[] {
  const all = new Set([...types, ...Object.keys(resources ?? {})])
  return [...all].map((type) => {
    const ids = resources?.[type]
    return { type, ids: ids?.join('\n') ?? '', isNone: ids?.length === 0 }
  })
}

/** Returns what a user typed, to be shown again. */
export function bindingsIn(form: Form, types: Iterable<string>): BindingValues[] {
  return bindingsOf(before(form), types).map(({ type }) => {
    const { ids, none } = bindingFields(type)
    return { type, ids: valueOf(form, ids), isNone: form.has(none) }
  })
}

/**
 * Returns the resources that a form wishes; `undefined` if they are those with which the form was made. What the user leaves alone may have
 * changed meanwhile, or have ids that no form can hold.
 */
export function readBindings(form: Form, types: Iterable<string>): Resources | null | undefined {
  const values = bindingsIn(form, types)
  const shown = bindingsOf(before(form), types)
  if (JSON.stringify(listsOf(values)) === JSON.stringify(listsOf(shown))) return undefined

  const lists = listsOf(values)
  return lists.length > 0 ? Object.fromEntries(lists) : null
}

function listsOf(values: readonly BindingValues[]) {
  return values.flatMap(({ type, ids, isNone }): [string, string[]][] => {
    const list = linesOf(ids)
    return list.length > 0 || isNone ? [[type, list]] : []
  })
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}

/** Reads what the form was made with. A text that is no such list stands for nothing. */
function before(form: Form): Resources | null {
  try {
    const lists = Object.entries(Object(JSON.parse(valueOf(form, boundBefore) || 'null')))
    return Object.fromEntries(
      lists.map(([type, ids]): [string, string[]] => [
        type,
        (Array.isArray(ids) ? ids : []).filter((id) => typeof id === 'string'),
      ]),
    )
  } catch {
    return null
  }
}
