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
    const [, name = '', index] = pointer.split('/')
    const label = name === 'allowedIps' ? lineOf(labels[name], index) : labels[name]
    if (label === undefined) others.push(texts.fault(pointer, message))
    else if (!fields.has(name)) fields.set(name, texts.fault(label, message))
  }
  return { status: error.status, fields, general: others[0] }

  function lineOf(label = '', index: string | undefined) {
    return index === undefined ? label : texts.line(label, Number(index) + 1)
  }
}

/** Returns the sentence of a refusal in a language. */
export function sentenceOf(error: ApiKeysError, texts: Texts): string {
  return texts.refusals[error.code] ?? error.message
}
