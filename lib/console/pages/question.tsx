import type { ComponentChildren } from 'preact'

import type { Problem } from '../faults'
import type { Page } from '../page'
import { Field } from './fields'
import { Banner } from './layout'

interface QuestionProps {
  page: Page
  /** The way back, above the title. */
  crumbs: ComponentChildren
  /** The address to which the form is sent. */
  action: string
  title: string
  lead: string
  problem: Problem | undefined
  /** The text of the button. */
  submit: string
  /** The link that changes nothing. */
  keep: { text: string; href: string }
  isDangerous?: boolean | undefined
  children: ComponentChildren
}

/** The page that asks before a change is made. */
export function Question(props: QuestionProps) {
  const { page, crumbs, action, title, lead, problem, submit, keep, isDangerous, children } = props
  const general = problem && (problem.general ?? page.texts.refused.title)
  return (
    <>
      {crumbs}
      <h1>
        <bdi>{title}</bdi>
      </h1>
      <p class="lead">{lead}</p>
      {general !== undefined && <Banner kind="bad">{general}</Banner>}
      <form method="post" action={action} autocomplete="off" data-once novalidate>
        {children}
        <div class="actions">
          <button class={isDangerous ? 'button danger' : 'button primary'}>{submit}</button>
          <a class="button plain" href={keep.href}>
            {keep.text}
          </a>
        </div>
      </form>
    </>
  )
}

interface ReasonProps {
  page: Page
  reason: string
  problem: Problem | undefined
  /** The hint about a reason that the change needs; without it, the reason is optional. */
  requiredHint?: string | undefined
}

/** The field for the reason of a change. */
export function ReasonField({ page, reason, problem, requiredHint }: ReasonProps) {
  const { revoke, form, admin } = page.texts
  return (
    <Field
      name="reason"
      label={revoke.reason}
      optional={requiredHint === undefined ? form.optional : undefined}
      hint={requiredHint ?? (page.look.admin ? admin.reasonHint : revoke.reasonHint)}
      problem={problem}
    >
      {(attributes) => (
        <input type="text" name="reason" value={reason} dir="auto" {...attributes} />
      )}
    </Field>
  )
}
