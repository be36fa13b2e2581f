import { type ApiKeysError, InvalidInputError } from '../errors'
import type { Texts } from './texts/texts'

/** Why a form was refused: the faults of its fields in words, and what is wrong beside them. */
export interface Problem {
  status: number
  fields: ReadonlyMap<string, string>
  /** In words; `undefined` if all faults are of fields. */
  general: string | undefined
}

/** Returns why a form was refused, in the words of a language. `labels` has the labels of its fields, by their names in the input. */
export function problemFrom(
  error: ApiKeysError,
  texts: Texts,
  labels: Readonly<Record<string, string>>,
): Problem {
  const fields = new Map<string, string>()
  if (!(error instanceof InvalidInputError)) {
    return { status: error.status, fields, general: sentenceOf(error, texts) }
  }

  const others: string[] = []
  for (const { pointer, message } of error.errors) {
    const [, name = '', ...place] = pointer.split('/')
    const [field, label] = fieldOf(name, place)
    if (label === undefined) others.push(texts.fault(pointer, message))
    else if (!fields.has(field)) fields.set(field, texts.fault(label, message))
  }
  return { status: error.status, fields, general: others[0] }

  /** Returns a field and its label. The ids of each type of resources have a field of their own. */
  function fieldOf(name: string, [first, second]: readonly string[]) {
    if (name === 'allowedIps') return [name, lineOf(labels[name], first)] as const
    if (name !== 'resources' || first === undefined) return [name, labels[name]] as const
    return [`${name}/${first}`, lineOf(first, second)] as const
  }

  function lineOf(label = '', index: string | undefined) {
    return index === undefined ? label : texts.line(label, Number(index) + 1)
  }
}

/** Returns the sentence of a refusal in a language. */
export function sentenceOf(error: ApiKeysError, texts: Texts): string {
  return texts.refusals[error.code] ?? error.message
}
