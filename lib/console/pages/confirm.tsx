import type { ComponentChildren } from 'preact'

import type { ApiKeyRecord } from '../../keys/record'
import type { Problem } from '../faults'
import type { Page } from '../page'
import { Choice, Field } from './fields'
import { Banner, Crumbs } from './layout'
import { Ago, Exactly, KeyEnds } from './parts'

interface ConfirmProps {
  page: Page
  apiKey: ApiKeyRecord
  problem: Problem | undefined
}

/** The page that asks before a key is revoked. It names the key, and its last use. */
export function Revoke({ page, apiKey, problem, reason }: ConfirmProps & { reason: string }) {
  const { revoke, form } = page.texts
  return (
    <Confirm
      page={page}
      apiKey={apiKey}
      problem={problem}
      view="revoke"
      title={revoke.title(apiKey.name)}
      lead={revoke.lead}
      submit={revoke.submit}
      keep={revoke.keep}
      isDangerous
    >
      <div class="facts">
        <KeyEnds ends={apiKey} />
        <LastUse page={page} apiKey={apiKey} />
      </div>
      <Field
        name="reason"
        label={revoke.reason}
        optional={form.optional}
        hint={revoke.reasonHint}
        problem={problem}
      >
        {(attributes) => (
          <input type="text" name="reason" value={reason} dir="auto" {...attributes} />
        )}
      </Field>
    </Confirm>
  )
}

function LastUse({ page, apiKey }: { page: Page; apiKey: ApiKeyRecord }) {
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
  const { endRotation, key, cancel } = page.texts
  const { previousSecret } = apiKey
  return (
    <Confirm
      page={page}
      apiKey={apiKey}
      problem={problem}
      view="end-rotation"
      title={endRotation.title(apiKey.name)}
      lead={endRotation.lead}
      submit={endRotation.submit}
      keep={cancel}
      isDangerous
    >
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
  request: string
}

/** The form for a new secret, with a choice of the grace for the old one. */
export function Rotate({ page, apiKey, problem, graces, grace, request }: RotateProps) {
  const { rotate, cancel } = page.texts
  const options = graces.map((seconds) => ({
    value: String(seconds),
    text: seconds === 0 ? rotate.now : page.formats.duration(seconds),
  }))
  return (
    <Confirm
      page={page}
      apiKey={apiKey}
      problem={problem}
      view="rotate"
      title={rotate.title(apiKey.name)}
      lead={rotate.lead}
      submit={rotate.submit}
      keep={cancel}
    >
      <input type="hidden" name="request" value={request} />
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
  title: string
  lead: string
  submit: string
  keep: string
  isDangerous?: boolean
  children: ComponentChildren
}

function Confirm({
  page,
  apiKey,
  problem,
  view,
  title,
  lead,
  submit,
  keep,
  isDangerous,
  children,
}: FrameProps) {
  const general = problem && (problem.general ?? page.texts.refused.title)
  return (
    <>
      <Crumbs page={page} name={apiKey.name} id={apiKey.id} />
      <h1>
        <bdi>{title}</bdi>
      </h1>
      <p class="lead">{lead}</p>
      {general !== undefined && <Banner kind="bad">{general}</Banner>}
      <form
        method="post"
        action={page.to(`${apiKey.id}/${view}`)}
        autocomplete="off"
        data-once
        novalidate
      >
        {children}
        <div class="actions">
          <button class={isDangerous ? 'button danger' : 'button primary'}>{submit}</button>
          <a class="button plain" href={page.to(apiKey.id)}>
            {keep}
          </a>
        </div>
      </form>
    </>
  )
}
