import type { DescribedPermission } from '../../keys/permissions'
import type { BindingValues } from '../bindings'
import { expiryAfter, presetsWithin } from '../expiry'
import type { OwnerInput } from '../admin/owner-input'
import type { Problem } from '../faults'
import type { Page } from '../page'
import { OwnerField } from './admin/owner-parts'
import { Choice, describedBy, Fault, Field } from './fields'
import { Banner, Crumbs } from './layout'
import { Restrictions } from './key-restrictions'
import { wordsFor } from './parts'

/** The values of the fields of the form of a key. */
export interface KeyValues {
  name: string
  description: string
  permissions: readonly string[]
  environment: string
  expiry: string
  expiresOn: string
  addresses: string
  bindings: readonly BindingValues[]
  /** The bindings of the key when the form was made, as JSON. */
  bound: string
}

/** The permissions under a heading of the app's. */
export interface PermissionGroup {
  /** Empty if the app has no headings. */
  heading: string
  permissions: readonly DescribedPermission[]
}

interface KeyFormProps {
  page: Page
  values: KeyValues
  groups: readonly PermissionGroup[]
  /** The names of the environments of the app. */
  environments: readonly string[]
  /** The words of the app for all permissions. */
  descriptions: ReadonlyMap<string, string>
  /** The permissions of the key that the user may no longer give. */
  gone?: readonly DescribedPermission[]
  /** The permissions that the key had when the form was made. */
  shown?: readonly string[]
  problem: Problem | undefined
  maxLifetimeSeconds: number
  /** The time when the form was made, from which the presets count. */
  formAt: number
  /** The name of this request, so that it is carried out once. */
  request?: string
  /** The owner of a new key, if an administrator makes it. */
  owner?: OwnerInput
  /** The key that is edited; `undefined` for a new key. */
  edited?: { id: string; name: string; expiresAt: Date | null }
}

/** The field with the permissions that the key had when the form was made. */
export const permissionsBefore = 'permissionsBefore'

/** The form for a new key, and for changes of a key. */
export function KeyForm(props: KeyFormProps) {
  const { page, values, problem, edited, owner, request, shown } = props
  const { texts, to } = page
  const { form } = texts
  return (
    <>
      <Crumbs page={page} {...(edited && { name: edited.name, href: to(edited.id) })} />
      <h1>
        <bdi>{edited ? form.edit(edited.name) : form.create}</bdi>
      </h1>
      {!edited && <p class="lead">{owner ? texts.admin.create.lead : form.createLead}</p>}
      {problem && <Banner kind="bad">{problem.general ?? form.problems}</Banner>}
      <form
        method="post"
        action={to(edited ? `${edited.id}/edit` : 'new')}
        autocomplete="off"
        data-once
        novalidate
      >
        {request !== undefined && <input type="hidden" name="request" value={request} />}
        {shown && <input type="hidden" name={permissionsBefore} value={shown.join(' ')} />}
        <OwnerOf {...props} />
        <Field name="name" label={form.name} hint={form.nameHint} problem={problem}>
          {(attributes) => (
            <input
              type="text"
              name="name"
              value={values.name}
              dir="auto"
              autofocus={!problem && owner?.ownerId !== ''}
              required
              {...attributes}
            />
          )}
        </Field>
        <Field
          name="description"
          label={form.description}
          optional={form.optional}
          problem={problem}
        >
          {(attributes) => (
            // The first line break of a text area is not part of its value.
            <textarea name="description" rows={2} dir="auto" {...attributes}>
              {`\n${values.description}`}
            </textarea>
          )}
        </Field>
        {!edited && props.environments.length > 0 && <EnvironmentOf {...props} />}
        <Permissions {...props} />
        <Expiry {...props} />
        <Restrictions
          page={page}
          addresses={values.addresses}
          bindings={values.bindings}
          bound={values.bound}
          problem={problem}
        />
        <div class="actions">
          <button class="button primary">{edited ? form.save : form.submit}</button>
          <a class="button plain" href={edited ? to(edited.id) : to('')}>
            {texts.cancel}
          </a>
        </div>
      </form>
    </>
  )
}

function OwnerOf({ page, owner, problem }: KeyFormProps) {
  const { fields, create } = page.texts.admin
  if (!owner) return null
  return (
    <OwnerField
      page={page}
      label={fields.owner}
      hint={create.ownerHint}
      value={owner}
      problem={problem}
      hasFocus={!problem && owner.ownerId === ''}
    />
  )
}

function EnvironmentOf({ page, values, problem, environments }: KeyFormProps) {
  const { form } = page.texts
  return (
    <Field
      name="environment"
      label={form.environment}
      hint={form.environmentHint}
      problem={problem}
    >
      {(attributes) => (
        <Choice
          name="environment"
          value={values.environment}
          options={environments.map((name) => ({ value: name, text: name }))}
          attributes={attributes}
        />
      )}
    </Field>
  )
}

function Permissions({ page, values, groups, gone = [], problem, descriptions }: KeyFormProps) {
  const { form } = page.texts
  const fault = problem?.fields.get('permissions')
  return (
    <fieldset
      class={fault === undefined ? 'field' : 'field wrong'}
      aria-describedby={describedBy('permissions', form.permissionsHint, fault)}
    >
      <legend>{form.permissions}</legend>
      <p class="hint" id="permissions-hint">
        {form.permissionsHint}
      </p>
      <div class="permissions">
        {groups.map(({ heading, permissions }) => (
          <div
            class="group"
            role={heading === '' ? undefined : 'group'}
            aria-label={heading || undefined}
          >
            {heading !== '' && <h2>{heading}</h2>}
            {permissions.map(({ name, description, implies }) => (
              <label class="check">
                <input
                  type="checkbox"
                  name="permissions"
                  value={name}
                  checked={values.permissions.includes(name)}
                />
                <span>
                  {description ?? name}{' '}
                  {gone.some((permission) => permission.name === name) && (
                    <span class="optional">({form.permissionGone}) </span>
                  )}
                  {description !== null && <code>{name}</code>}{' '}
                  {implies.length > 0 && (
                    <span class="optional implied">
                      {form.includes(page.formats.list(wordsFor(descriptions, implies)))}
                    </span>
                  )}
                </span>
              </label>
            ))}
          </div>
        ))}
      </div>
      <Fault name="permissions" fault={fault} />
    </fieldset>
  )
}

function Expiry({ page, values, problem, maxLifetimeSeconds, formAt, edited }: KeyFormProps) {
  const { formats, texts } = page
  const { form } = texts
  const options = [
    ...(edited ? [{ value: 'keep', text: keptExpiry() }] : []),
    ...presetsWithin(maxLifetimeSeconds).map((days) => ({
      value: String(days),
      text: form.inDays(formats.duration(days * 86_400), formats.date(expiryAfter(days, formAt))),
    })),
    { value: 'date', text: form.onDate },
    ...(maxLifetimeSeconds === Infinity ? [{ value: 'never', text: form.noExpiry }] : []),
  ]

  function keptExpiry() {
    const expiresAt = edited?.expiresAt
    return expiresAt ? form.keepExpiry(formats.time(expiresAt)) : form.keepNoExpiry
  }

  return (
    <Field name="expiresAt" label={form.expiry} hint={form.expiryHint} problem={problem}>
      {(attributes) => (
        <div class="expiry">
          <Choice name="expiry" value={values.expiry} options={options} attributes={attributes} />
          <label class="on-date">
            <span>{form.date}</span>
            <input type="date" name="expiresOn" value={values.expiresOn} />
          </label>
        </div>
      )}
    </Field>
  )
}
