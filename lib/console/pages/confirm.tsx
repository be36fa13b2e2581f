import type { ComponentChildren } from 'preact'

import type { ApiKeyRecord } from '../../keys/record'
import type { Problem } from '../faults'
import type { Page } from '../page'
import { Choice, Field } from './fields'
import { Crumbs } from './layout'
import { Ago, Exactly, KeyEnds } from './parts'
import { Question, ReasonField } from './question'

/** The contents of a page that asks before a key is changed. */
export interface ConfirmProps {
  page: Page
  apiKey: ApiKeyRecord
  problem: Problem | undefined
}

/** The page that asks before a key is revoked. It names the key, and its last use. */
export function Revoke({ page, apiKey, problem, reason }: ConfirmProps & { reason: string }) {
  const { revoke } = page.texts
  return (
    <Confirm
      page={page}
      apiKey={apiKey}
      problem={problem}
      view="revoke"
      texts={revoke}
      keep={revoke.keep}
      isDangerous
    >
      <div class="facts">
        <KeyEnds ends={apiKey} />
        <LastUse page={page} apiKey={apiKey} />
      </div>
      <ReasonField page={page} reason={reason} problem={problem} />
    </Confirm>
  )
}

/** The last use of a key, in a sentence. */
export function LastUse({ page, apiKey }: { page: Page; apiKey: ApiKeyRecord }) {
  const { revoke, key } = page.texts
  const { lastUsedAt, lastUsedFrom } = apiKey
  if (!lastUsedAt) return <p>{revoke.unused}</p>
  return (
    <p>
      {revoke.usedAt} <Ago page={page} at={lastUsedAt} />
      {lastUsedFrom !== null && ` ${key.from(lastUsedFrom)}`} (
      <Exactly page={page} at={lastUsedAt} />)
    </p>
  )
}

/** The page that asks before the old secret of a key is ended. */
export function EndRotation({ page, apiKey, problem }: ConfirmProps) {
  const { endRotation, key } = page.texts
  const { previousSecret, pendingRotation } = apiKey
  return (
    <Confirm
      page={page}
      apiKey={apiKey}
      problem={problem}
      view="end-rotation"
      texts={endRotation}
      isDangerous
    >
      {pendingRotation && (
        <div class="facts">
          <KeyEnds ends={pendingRotation} />
          <p>{key.pending}</p>
        </div>
      )}
      {previousSecret && (
        <div class="facts">
          <KeyEnds ends={previousSecret} />
          <p>
            {previousSecret.lastUsedAt ? (
              <>
                {key.oldSecretUsed} <Ago page={page} at={previousSecret.lastUsedAt} />
              </>
            ) : (
              key.oldSecretUnused
            )}
          </p>
        </div>
      )}
    </Confirm>
  )
}

interface RotateProps extends ConfirmProps {
  /** The seconds of grace that the form offers. */
  graces: readonly number[]
  grace: string
  /** When the new secret takes the place of the old one. */
  activate: string
  request: string
}

/** The form for a new secret, with a choice of the grace for the old one. */
export function Rotate({ page, apiKey, problem, graces, grace, activate, request }: RotateProps) {
  const { rotate } = page.texts
  const activations = Object.entries(rotate.activations).map(([value, text]) => ({ value, text }))
  const options = graces.map((seconds) => ({
    value: String(seconds),
    text: seconds === 0 ? rotate.now : page.formats.duration(seconds),
  }))
  return (
    <Confirm page={page} apiKey={apiKey} problem={problem} view="rotate" texts={rotate}>
      <input type="hidden" name="request" value={request} />
      <Field name="activate" label={rotate.activate} problem={problem}>
        {(attributes) => (
          <Choice name="activate" value={activate} options={activations} attributes={attributes} />
        )}
      </Field>
      <Field
        name="gracePeriodSeconds"
        label={rotate.grace}
        hint={rotate.graceHint}
        problem={problem}
      >
        {(attributes) => (
          <Choice name="grace" value={grace} options={options} attributes={attributes} />
        )}
      </Field>
    </Confirm>
  )
}

interface FrameProps extends ConfirmProps {
  view: string
  texts: { title(name: string): string; lead: string; submit: string }
  /** The text of the link that changes nothing. */
  keep?: string
  isDangerous?: boolean
  children: ComponentChildren
}

/** The page that asks before a key is changed. */
export function Confirm({ apiKey, view, texts, keep, ...question }: FrameProps) {
  const { page } = question
  const own = page.to(apiKey.id)
  return (
    <Question
      {...question}
      title={texts.title(apiKey.name)}
      lead={texts.lead}
      submit={texts.submit}
      crumbs={<Crumbs page={page} name={apiKey.name} href={own} />}
      action={page.to(`${apiKey.id}/${view}`)}
      keep={{ text: keep ?? page.texts.cancel, href: own }}
    />
  )
}
