import type { ApiKeyRecord } from '../../keys/record'
import { stateOf } from '../key-state'
import type { Page } from '../page'

/** The two ends of a key, by which people recognize it. */
export function KeyEnds({ ends }: { ends: { prefix: string; postfix: string } }) {
  return (
    <code class="ends notranslate">
      {ends.prefix}…{ends.postfix}
    </code>
  )
}

/** The name of a key, as a link to its page, and its two ends. */
export function KeyLink({ page, apiKey }: { page: Page; apiKey: ApiKeyRecord }) {
  return (
    <>
      <a href={page.to(apiKey.id)}>
        <bdi>{apiKey.name}</bdi>
      </a>{' '}
      <KeyEnds ends={apiKey} />
    </>
  )
}

/** The state of a key, as a word with a colour. A key that became public has another word beside it. */
export function State({ page, apiKey }: { page: Page; apiKey: ApiKeyRecord }) {
  const state = stateOf(apiKey)
  return (
    <>
      <span class={`state ${state}`}>{page.texts.states[state]}</span>
      {apiKey.exposed && <span class="state exposed">{page.texts.exposure.state}</span>}
    </>
  )
}

/** A time as a distance from now. The exact time is its title, and the script shows it if the reader wants it. */
export function Ago({ page, at }: { page: Page; at: Date }) {
  const { formats, now } = page
  return (
    <time datetime={at.toISOString()} title={formats.time(at)} data-show="distance">
      {formats.distance(at, now)}
    </time>
  )
}

/** The last use of a key. */
export function LastUsed({ page, at }: { page: Page; at: Date | null }) {
  return at ? <Ago page={page} at={at} /> : <span class="none">{page.texts.times.never}</span>
}

/** An exact time. The script shows it in the reader's zone. */
export function Exactly({ page, at }: { page: Page; at: Date }) {
  return (
    <time datetime={at.toISOString()} data-show="time">
      {page.formats.time(at)}
    </time>
  )
}

/** A day. The exact time is its title. */
export function Day({ page, at }: { page: Page; at: Date }) {
  return (
    <time datetime={at.toISOString()} title={page.formats.time(at)} data-show="day">
      {page.formats.date(at)}
    </time>
  )
}

/** The button that shows exact times in place of distances. It is hidden until the script has found that it can. */
export function ExactTimes({ page }: { page: Page }) {
  return (
    <button class="button quiet" type="button" aria-pressed="false" data-exact-times hidden>
      {page.texts.times.exactly}
    </button>
  )
}

/** Returns the words of the app for permissions, or their names. */
export function wordsFor(descriptions: ReadonlyMap<string, string>, names: readonly string[]) {
  return names.map((name) => descriptions.get(name) ?? name)
}
