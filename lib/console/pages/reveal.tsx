import type { ApiKeyRecord } from '../../keys/record'
import type { Page } from '../page'
import { Banner, Crumbs } from './layout'
import { Exactly, KeyEnds } from './parts'

interface RevealProps {
  page: Page
  apiKey: ApiKeyRecord
  plainTextKey: string
  /** True if the key has a new secret, and is not new itself. */
  isRotated: boolean
  /** The address that the ready `curl` line calls. */
  example: string
}

/** The one page that shows a plain-text key. The script takes the key out of it when the user leaves. */
export function Reveal({ page, apiKey, plainTextKey, isRotated, example }: RevealProps) {
  const { texts, to } = page
  const { reveal } = texts
  const { previousSecret } = apiKey
  return (
    <>
      <Crumbs page={page} name={apiKey.name} href={page.to(apiKey.id)} />
      <h1>
        <bdi>{isRotated ? reveal.rotated(apiKey.name) : reveal.created(apiKey.name)}</bdi>
      </h1>
      <Banner kind="note">{reveal.once}</Banner>
      <section class="secret" data-secret aria-label={reveal.key}>
        <h2 id="secret-label">{reveal.key}</h2>
        <div class="copyable">
          <code id="secret" class="whole notranslate" tabindex={0} aria-labelledby="secret-label">
            {plainTextKey}
          </code>
          <CopyButton page={page} of="secret" isPrimary />
        </div>
        <h2 id="curl-label">{reveal.tryIt}</h2>
        <p class="hint">{reveal.tryItLead}</p>
        <div class="copyable">
          <code id="curl" class="whole notranslate" tabindex={0} aria-labelledby="curl-label">
            {`curl ${quote(example)} -H ${quote(`Authorization: Bearer ${plainTextKey}`)}`}
          </code>
          <CopyButton page={page} of="curl" />
        </div>
      </section>
      <p class="hint" data-secret-gone hidden>
        {reveal.hidden}
      </p>
      {previousSecret && (
        <p>
          {reveal.graceUntil} <Exactly page={page} at={previousSecret.worksUntil} />:{' '}
          <KeyEnds ends={previousSecret} />
        </p>
      )}
      <div class="actions">
        <a class="button" href={to(apiKey.id)}>
          {reveal.done}
        </a>
      </div>
    </>
  )
}

/** Copies the text of an element. It is hidden until the script has found that it can. */
export function CopyButton({
  page,
  of,
  isPrimary,
}: {
  page: Page
  of: string
  isPrimary?: boolean
}) {
  const { reveal } = page.texts
  return (
    <>
      <button
        class={isPrimary ? 'button primary' : 'button'}
        type="button"
        data-copy={of}
        data-copied={reveal.copied}
        data-failed={reveal.notCopied}
        hidden
      >
        {reveal.copy}
      </button>
      <span class="copy-state" role="status" data-copy-state={of} />
    </>
  )
}

/** Quotes a word for a shell of POSIX. */
function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}

/** Says that a request was carried out before, and so shows no secret. */
export function Already({
  page,
  apiKey,
  isRotated,
}: {
  page: Page
  apiKey: { id: string } | null
  isRotated: boolean
}) {
  const { reveal, key, refused } = page.texts
  return (
    <>
      <Crumbs page={page} />
      <h1>{isRotated ? reveal.alreadyRotated : reveal.already}</h1>
      <p class="lead">{reveal.alreadyLead}</p>
      <div class="actions">
        {apiKey && (
          <a class="button primary" href={page.to(`${apiKey.id}/rotate`)}>
            {key.rotate}
          </a>
        )}
        <a class="button" href={page.to(apiKey ? apiKey.id : '')}>
          {apiKey ? key.details : refused.toList}
        </a>
      </div>
    </>
  )
}
