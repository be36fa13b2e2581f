import type { ApiKeyEvent } from '../../../audit/list-entries'
import type { Page } from '../../page'
import { Ago } from '../parts'
import { Cell, Row, RowHeading, Table } from '../table'
import { ActorOf, ReasonOf } from '../trail'
import { nameOf, OwnerLink } from './owner-parts'

interface EventsProps {
  page: Page
  events: readonly ApiKeyEvent[]
  userId: string | number
  /** The names of keys, by their ids. A deleted key has none. */
  names?: ReadonlyMap<string, string>
}

/** Entries of the audit trail: what was done, to which key of which owner, by whom, and what has changed. */
export function Events({ page, events, userId, names = new Map() }: EventsProps) {
  const { trail, admin } = page.texts
  return (
    <Table class="rows events" headings={[trail.what, admin.trail.about, trail.who, trail.when]}>
      {events.map((event) => (
        <Row>
          <RowHeading>
            <Action page={page} event={event} /> <ReasonOf event={event} />
          </RowHeading>
          <Cell class="about">
            <About page={page} event={event} name={names.get(event.apiKeyId ?? '')} />
          </Cell>
          <Cell class="who">
            <ActorOf page={page} event={event} userId={userId} />
            {event.address !== null && <span class="none address">{event.address}</span>}
          </Cell>
          <Cell class="when">
            <Ago page={page} at={event.createdAt} />
          </Cell>
        </Row>
      ))}
    </Table>
  )
}

interface AboutProps {
  page: Page
  event: ApiKeyEvent
  name: string | undefined
}

/** The key and the owner that an entry is about. */
function About({ page, event, name }: AboutProps) {
  const { apiKeyId, owner, formerOwner } = event
  return (
    <>
      {apiKeyId !== null && (
        <a class="key-link" href={page.to(apiKeyId)}>
          {name === undefined ? <code>{apiKeyId}</code> : <bdi>{name}</bdi>}
        </a>
      )}{' '}
      {owner && <OwnerLink page={page} owner={owner} />}{' '}
      {formerOwner && (
        <span class="none">{page.texts.admin.trail.from(nameOf(page, formerOwner))}</span>
      )}
    </>
  )
}

/** The action of an entry. If attributes of a key have changed, it opens to show their values before and after. */
function Action({ page, event }: { page: Page; event: ApiKeyEvent }) {
  const { action, before, after } = event
  const text = page.texts.trail.actions[action]
  const named = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])
  // An entry of a new key has all attributes. Those without a value say nothing.
  const names = [...named].filter((name) => hasValue(before?.[name] ?? after?.[name]))
  if (names.length === 0) return <>{text}</>
  return (
    <details>
      <summary>{text}</summary>
      <dl class="changes">
        {names.map((name) => (
          <div>
            <dt>{name}</dt>
            <dd>
              {hasValue(before?.[name]) && <del dir="auto">{valueText(before?.[name])}</del>}{' '}
              {hasValue(after?.[name]) && <ins dir="auto">{valueText(after?.[name])}</ins>}
            </dd>
          </div>
        ))}
      </dl>
    </details>
  )
}

function hasValue(value: unknown): boolean {
  return value !== undefined && value !== null
}

/** Writes a value of an attribute. The database may have written any JSON. */
function valueText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}
