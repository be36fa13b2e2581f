import type { ComponentChildren } from 'preact'

import type { Problem } from '../faults'

interface FieldProps {
  /** The name in the input of the library, by which faults are found. */
  name: string
  label: string
  hint?: string | undefined
  optional?: string | undefined
  problem: Problem | undefined
  /** Gets the attributes that tie the control to its label, its hint and its fault. */
  children(attributes: Attributes): ComponentChildren
}

interface Attributes {
  id: string
  'aria-describedby': string | undefined
  'aria-invalid': 'true' | undefined
}

/** A control with its label, its hint and its fault. */
export function Field({ name, label, hint, optional, problem, children }: FieldProps) {
  const fault = problem?.fields.get(name)
  return (
    <div class={fault === undefined ? 'field' : 'field wrong'}>
      <label for={name}>
        {label}
        {optional !== undefined && <span class="optional"> ({optional})</span>}
      </label>
      {hint !== undefined && (
        <p class="hint" id={`${name}-hint`}>
          {hint}
        </p>
      )}
      {children({
        id: name,
        'aria-describedby': describedBy(name, hint, fault),
        'aria-invalid': fault === undefined ? undefined : 'true',
      })}
      <Fault name={name} fault={fault} />
    </div>
  )
}

/** Returns the ids of the hint and the fault of a field. */
export function describedBy(name: string, hint: string | undefined, fault: string | undefined) {
  const ids = [
    ...(hint === undefined ? [] : [`${name}-hint`]),
    ...(fault === undefined ? [] : [`${name}-fault`]),
  ]
  return ids.length > 0 ? ids.join(' ') : undefined
}

/** The fault of a field, in words. */
export function Fault({ name, fault }: { name: string; fault: string | undefined }) {
  if (fault === undefined) return null
  return (
    <p class="fault" id={`${name}-fault`}>
      {fault}
    </p>
  )
}

export interface ChoiceProps {
  name: string
  value: string
  options: readonly { value: string; text: string }[]
  attributes: Partial<Attributes> & { 'aria-label'?: string }
}

/** A choice of one of several values. */
export function Choice({ name, value, options, attributes }: ChoiceProps) {
  return (
    <select name={name} {...attributes}>
      {options.map((option) => (
        <option value={option.value} selected={option.value === value}>
          {option.text}
        </option>
      ))}
    </select>
  )
}
