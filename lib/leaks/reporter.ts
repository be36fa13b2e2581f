import type { Request } from 'express'

import { maskToken } from '../http/imported-tokens'
import { createKeyMask, type SecretFormat } from '../keys/secret'
import type { RouteCommands } from '../lifecycle/commands'
import type { ExposureReport } from '../lifecycle/exposure'
import type { Verification } from '../verification/verification'

/** A text that was found in public. */
export interface Report {
  token: string
  /** The source, as records show it. */
  source: string
  url: string | null
}

export interface ReporterParts {
  format: SecretFormat
  verification: Pick<Verification, 'examine'>
  routeCommands: Pick<RouteCommands, 'expose'>
}

/** Takes the reports of a request. Resolves to true for each text that is a key of the app. */
export type ReportOf = (
  req: Request,
) => (reports: readonly Report[], reason: string, sender?: Sender) => Promise<boolean[]>

/** The address of a sender who may be anyone. What is no key counts against it. */
type Sender = Parameters<Verification['examine']>[1]

/** The longest address of a place that a record keeps. */
const longestUrl = 2_048

/** Makes the one way of all reports: it finds the keys, refuses and marks them, and says for each text if it is a key of the app. */
export function createReporter(parts: ReporterParts, outcome: ExposureReport['outcome']) {
  const { format, verification, routeCommands } = parts
  const maskKeys = createKeyMask(format)

  /** Returns the place of a report in the form of a record: without a key, and `null` if it is no text that can be kept. */
  function placeOf({ url, token }: Report, isImported: boolean): string | null {
    const isKept = url !== null && url !== '' && url.length <= longestUrl && printable.test(url)
    if (!isKept || !url.isWellFormed()) return null
    return isImported ? maskImported(url, token) : maskKeys(url)
  }

  /** Masks an imported key in a text, of which no marker tells. The address may have it as it is, or encoded. */
  function maskImported(text: string, token: string): string {
    const parts = text.split(token).flatMap((part) => part.split(encodeURIComponent(token)))
    return parts.map(maskKeys).join(maskToken(token))
  }

  return async function report(
    reports: readonly Report[],
    circumstances: Pick<ExposureReport, 'reason' | 'address'>,
    sender: Sender,
  ): Promise<boolean[]> {
    const facts = await Promise.all(reports.map(({ token }) => verification.examine(token, sender)))
    const found = reports.flatMap((each, at) => {
      const { digests = [], key = null, source = null } = facts[at] ?? {}
      if (!key) return []
      const url = placeOf(each, source !== null)
      return [{ apiKeyId: key.id, digests, source: each.source, url }]
    })
    await routeCommands.expose(found, { ...circumstances, outcome })
    return facts.map(({ key }) => key !== null)
  }
}

const printable = /^[^\p{Cc}]*$/u

/** Returns the members of a list that are objects, as they were sent; `null` if it is no list. */
export function objectsOf(list: unknown): Record<string, unknown>[] | null {
  if (!Array.isArray(list)) return null
  return list.map((each) => Object(each) as Record<string, unknown>)
}
