import type { ApiKeyEvent } from '../../audit/list-entries'
import type { Page } from '../page'
import type { KeyProps } from './key-props'
import { Ago, ExactTimes } from './parts'
import { Cell, Row, RowHeading, Table } from './table'

interface ActorProps {
  page: Page
  event: ApiKeyEvent
  userId: string | number
}

/** The actor of an entry. Administrators see who it was. */
export function ActorOf({ page, event, userId }: ActorProps) {
  const { trail } = page.texts
  const { actorType, actorId } = event
  const ownType = page.look.admin ? 'admin' : 'user'
  if (actorType === ownType && actorId === String(userId)) return <>{trail.you}</>
  return (
    <>
      {trail.actors[actorType]} {page.look.admin && actorId !== null && <bdi>{actorId}</bdi>}
    </>
  )
}

/** The reason of an entry, if it has one. */
export function ReasonOf({ event: { reason } }: Pick<ActorProps, 'event'>) {
  if (reason === null) return null
  return (
    <span class="reason" dir="auto">
      {reason}
    </span>
  )
}

/** The history of a key, the newest entry first. */
export function Trail({ page, apiKey, userId, events, olderEvents, isNewest }: KeyProps) {
  const { texts, to } = page
  const { trail } = texts

  return (
    <section class="card" aria-labelledby="trail">
      <div class="card-head">
        <h2 id="trail">{trail.title}</h2>
        <ExactTimes page={page} />
      </div>
      <Table class="rows trail" headings={[trail.what, trail.who, trail.when]}>
        {events.map((event) => (
          <Row>
            <RowHeading>
              {trail.actions[event.action]} <ReasonOf event={event} />
            </RowHeading>
            <Cell class="who">
              <ActorOf page={page} event={event} userId={userId} />
              {event.address !== null && <span class="none"> {event.address}</span>}
            </Cell>
            <Cell class="when">
              <Ago page={page} at={event.createdAt} />
            </Cell>
          </Row>
        ))}
      </Table>
      {(olderEvents !== null || !isNewest) && (
        <nav class="pages" aria-label={trail.title}>
          {!isNewest && (
            <a class="button" href={`${to(apiKey.id)}#trail`}>
              {trail.newest}
            </a>
          )}
          {olderEvents !== null && (
            <a
              class="button"
              rel="next"
              href={`${to(apiKey.id)}?trail=${encodeURIComponent(olderEvents)}#trail`}
            >
              {trail.older}
            </a>
          )}
        </nav>
      )}
    </section>
  )
}
