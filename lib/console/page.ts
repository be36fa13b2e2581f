import type { Request } from 'express'

import type { Owner } from '../keys/owner'
import type { Assets } from './assets'
import { createFormats, type Formats } from './format'
import type { Look } from './options'
import { preferredLanguage, textsIn, type Language, type Texts } from './texts/texts'

/** The context of every part of a page: its language, its place, and the looks of the app. */
export interface Page {
  language: Language
  texts: Texts
  formats: Formats
  look: Look
  assets: Assets
  now: Date
  /** The owners that the page links to, and their names once they are found. */
  owners: Map<string, Owner>
  ownerNames: ReadonlyMap<string, string>
  /** Returns the address of a view relative to the page, because a proxy may have changed the path of the request. */
  to(view: string): string
}

const formats = new Map<Language, Formats>()

/** Returns what a page needs that answers a request. */
export function pageOf(req: Request, look: Look, assets: Assets): Page {
  const language = look.language ?? preferredLanguage((names) => req.acceptsLanguages(names))
  const known = formats.get(language) ?? createFormats(language)
  formats.set(language, known)
  const root = rootOf(req)

  return {
    language,
    texts: textsIn(language),
    formats: known,
    look,
    assets,
    now: new Date(),
    owners: new Map(),
    ownerNames: new Map(),
    to: (view) => (view === '' ? `${root}/` : `${root}/${view}`),
  }
}

/** Returns the page with headings that name an organization, so that members of several know whose keys they see. */
export function withName(page: Page, organization: string | undefined): Page {
  if (organization === undefined) return page
  return { ...page, texts: { ...page.texts, apiKeys: page.texts.apiKeysOf(organization) } }
}

/** Returns the address of the mount path, relative to the path of the request. */
function rootOf({ originalUrl, path }: Request): string {
  const depth = path.split('/').length - 2
  if (depth > 0) return Array.from({ length: depth }, () => '..').join('/')

  const [whole = ''] = originalUrl.split(/[?#]/)
  // At `/settings/keys`, the views are in `keys/`. At `/settings/keys/`, they are in the folder itself.
  return path === '/' && !whole.endsWith('/') ? `./${whole.slice(whole.lastIndexOf('/') + 1)}` : '.'
}
