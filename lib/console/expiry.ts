import { dayMs } from '../database/clock'
import { valueOf, type Form } from './form'

/** The days after which a key may expire that forms offer. */
export const presetDays = [7, 30, 60, 90, 365] as const

/** The wish that forms begin with. Ninety days suit most programs, and are offered wherever lifetimes are limited to no less. */
export function firstPreset(maxLifetimeSeconds: number): string {
  const offered = presetsWithin(maxLifetimeSeconds)
  return String(offered.includes(90) ? 90 : (offered.at(-1) ?? 'date'))
}

/** Returns the presets that a limit of lifetimes allows. */
export function presetsWithin(maxLifetimeSeconds: number): readonly number[] {
  return presetDays.filter((days) => days * (dayMs / 1000) <= maxLifetimeSeconds)
}

/** Returns the time that a preset names in a form that was made at a time. */
export function expiryAfter(days: number, formAt: number): Date {
  return new Date(formAt + days * dayMs)
}

/** Returns the expiry that a form wishes: a time, `null` for none, `undefined` for no change. Text is refused by the rules. */
export function readExpiry(form: Form, formAt: number): Date | string | null | undefined {
  const wish = valueOf(form, 'expiry')
  if (wish === 'keep') return undefined
  if (wish === 'never') return null
  if (wish === 'date') return endOfDay(valueOf(form, 'expiresOn'))

  const days = presetDays.find((days) => String(days) === wish)
  return days === undefined ? '' : expiryAfter(days, formAt)
}

/** A key works on its last day. The rules refuse a text that is no day. */
function endOfDay(day: string): string {
  return `${day.trim()}T23:59:59Z`
}
