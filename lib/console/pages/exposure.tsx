import type { Exposure } from '../../keys/record'
import type { Page } from '../page'
import { Exactly } from './parts'

/** How a key became public: by whom that was found, when, and where if that is known. */
export function ExposureOfKey({ page, exposed }: { page: Page; exposed: Exposure }) {
  return (
    <>
      {wordsFor(exposed.source, page.texts.exposure.sources)}{' '}
      <span class="none exact">
        <Exactly page={page} at={exposed.at} />
      </span>
      {exposed.url !== null && <Place url={exposed.url} />}
    </>
  )
}

/** Returns words for the source of a report. Behind a colon, GitHub says in which kind of text it has found the key. */
function wordsFor(source: string, sources: Readonly<Record<string, string>>): string {
  const [name = '', kind] = source.split(':')
  const words = sources[name]
  if (words === undefined) return source
  return kind === undefined ? words : `${words} (${kind})`
}

/** The place of a report. Its sender chose the address, so that only addresses of the web are links. */
function Place({ url }: { url: string }) {
  const text = <bdi class="place">{url}</bdi>
  return /^https?:\/\//i.test(url) && URL.canParse(url) ? (
    <a href={url} rel="noreferrer nofollow">
      {text}
    </a>
  ) : (
    text
  )
}
