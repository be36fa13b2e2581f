import type { Owner } from '../../../keys/owner'
import type { ApiKeyRecord } from '../../../keys/record'
import type { OwnerInput } from '../../admin/owner-input'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Choice, Field } from '../fields'
import { Ago, Day, KeyEnds, State } from '../parts'

/** Returns the address of a view about an owner. */
export function ownerAddress(page: Page, { type, id }: Owner, view = 'owner'): string {
  return `${page.to(view)}?${new URLSearchParams({ ownerType: type, ownerId: String(id) })}`
}

/** Returns the id of an owner, after its kind if the app has several kinds of owners. */
export function nameOf({ look, texts }: Page, { type, id }: Owner): string {
  return look.ownerTypes.length > 1 ? `${texts.admin.kinds[type]} ${id}` : String(id)
}

/** An owner, as a link to the page about it. */
export function OwnerLink({ page, owner }: { page: Page; owner: Owner }) {
  const { look, texts } = page
  return (
    <a class="owner-link" href={ownerAddress(page, owner)} title={String(owner.id)}>
      {look.ownerTypes.length > 1 && <span class="kind">{texts.admin.kinds[owner.type]}</span>}
      <bdi>{owner.id}</bdi>
    </a>
  )
}

interface OwnerFieldProps {
  page: Page
  label: string
  value: OwnerInput
  problem: Problem | undefined
  hint?: string
  optional?: string
  hasFocus?: boolean
}

/** The field in which an administrator names an owner: its kind, if the app has several, and its id. */
export function OwnerField({ page, value, hasFocus = false, ...field }: OwnerFieldProps) {
  const { look, texts } = page
  const kinds = look.ownerTypes.map((type) => ({ value: type, text: texts.admin.kinds[type] }))
  return (
    <Field name="owner" {...field}>
      {(attributes) => (
        <div class="owner-field">
          {kinds.length > 1 && (
            <Choice
              name="ownerType"
              value={value.ownerType || 'user'}
              options={kinds}
              attributes={{ 'aria-label': texts.admin.ownerKind }}
            />
          )}
          <input
            type="text"
            name="ownerId"
            value={value.ownerId}
            dir="auto"
            spellcheck={false}
            autofocus={hasFocus}
            {...attributes}
          />
        </div>
      )}
    </Field>
  )
}

/** Returns how many keys there are, in words. */
export function keyCount({ texts, formats }: Page, count: number): string {
  return texts.admin.keyCount(count, formats.number(count))
}

interface KeysProps {
  page: Page
  apiKeys: readonly ApiKeyRecord[]
  /** How many keys there are; more than are listed, perhaps. */
  count: number
  /** True if the keys belong to several owners. */
  hasOwners?: boolean
}

/** Keys in few columns: what a change is about. */
export function KeysInBrief({ page, apiKeys, count, hasOwners = false }: KeysProps) {
  const { texts, formats, to } = page
  const { list, admin } = texts
  return (
    <>
      <table class="rows brief" role="table">
        <thead role="rowgroup">
          <tr role="row">
            <th scope="col" role="columnheader">
              {list.columns.name}
            </th>
            {hasOwners && (
              <th scope="col" role="columnheader">
                {list.columns.owner}
              </th>
            )}
            <th scope="col" role="columnheader">
              {list.columns.status}
            </th>
            <th scope="col" role="columnheader">
              {list.columns.lastUsed}
            </th>
            <th scope="col" role="columnheader">
              {list.columns.created}
            </th>
          </tr>
        </thead>
        <tbody role="rowgroup">
          {apiKeys.map((apiKey) => (
            <tr role="row">
              <th scope="row" role="rowheader" class="name">
                <a href={to(apiKey.id)}>
                  <bdi>{apiKey.name}</bdi>
                </a>{' '}
                <KeyEnds ends={apiKey} />
              </th>
              {hasOwners && (
                <td role="cell" data-label={list.columns.owner}>
                  <OwnerLink page={page} owner={apiKey.owner} />
                </td>
              )}
              <td role="cell" data-label={list.columns.status}>
                <State page={page} apiKey={apiKey} />
              </td>
              <td role="cell" data-label={list.columns.lastUsed}>
                {apiKey.lastUsedAt ? (
                  <Ago page={page} at={apiKey.lastUsedAt} />
                ) : (
                  <span class="none">{texts.times.never}</span>
                )}
              </td>
              <td role="cell" data-label={list.columns.created}>
                <Day page={page} at={apiKey.createdAt} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {count > apiKeys.length && (
        <p class="hint">{admin.andMore(formats.number(count - apiKeys.length))}</p>
      )}
    </>
  )
}
