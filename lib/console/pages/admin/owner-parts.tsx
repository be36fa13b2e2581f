import { nameOfOwner, type Owner } from '../../../keys/owner'
import type { ApiKeyRecord } from '../../../keys/record'
import type { OwnerInput } from '../../admin/owner-input'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Choice, Field } from '../fields'
import { Day, KeyLink, LastUsed, State } from '../parts'
import { Cell, Row, RowHeading, Table } from '../table'

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
  const key = nameOfOwner(owner)
  page.owners.set(key, owner)
  const name = page.ownerNames.get(key)
  return (
    <a class="owner-link" href={ownerAddress(page, owner)} title={String(owner.id)}>
      {look.ownerTypes.length > 1 && <span class="kind">{texts.admin.kinds[owner.type]}</span>}
      {name !== undefined && (
        <>
          <bdi class="owner-name">{name}</bdi>{' '}
        </>
      )}
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
  const { texts, formats } = page
  const { list, admin } = texts
  const { name, owner, status, lastUsed, created } = list.columns
  const headings = [name, ...(hasOwners ? [owner] : []), status, lastUsed, created]
  return (
    <>
      <Table class="rows brief" headings={headings}>
        {apiKeys.map((apiKey) => (
          <Row>
            <RowHeading class="name">
              <KeyLink page={page} apiKey={apiKey} />
            </RowHeading>
            {hasOwners && (
              <Cell label={owner}>
                <OwnerLink page={page} owner={apiKey.owner} />
              </Cell>
            )}
            <Cell label={status}>
              <State page={page} apiKey={apiKey} />
            </Cell>
            <Cell label={lastUsed}>
              <LastUsed page={page} at={apiKey.lastUsedAt} />
            </Cell>
            <Cell label={created}>
              <Day page={page} at={apiKey.createdAt} />
            </Cell>
          </Row>
        ))}
      </Table>
      {count > apiKeys.length && (
        <p class="hint">{admin.andMore(formats.number(count - apiKeys.length))}</p>
      )}
    </>
  )
}
