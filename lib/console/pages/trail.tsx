import type { ApiKeyEvent } from '../../audit/list-entries'
import type { Page } from '../page'
import type { KeyProps } from './key-props'
import { Ago, ExactTimes } from './parts'

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
      <table class="rows trail" role="table">
        <thead role="rowgroup">
          <tr role="row">
            <th scope="col" role="columnheader">
              {trail.what}
            </th>
            <th scope="col" role="columnheader">
              {trail.who}
            </th>
            <th scope="col" role="columnheader">
              {trail.when}
            </th>
          </tr>
        </thead>
        <tbody role="rowgroup">
          {events.map((event) => (
            <tr role="row">
              <th scope="row" role="rowheader">
                {trail.actions[event.action]}{' '}
                {event.reason !== null && (
                  <span class="reason" dir="auto">
                    {event.reason}
                  </span>
                )}
              </th>
              <td role="cell" class="who">
                <ActorOf page={page} event={event} userId={userId} />
                {event.address !== null && <span class="none"> {event.address}</span>}
              </td>
              <td role="cell" class="when">
                <Ago page={page} at={event.createdAt} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
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
