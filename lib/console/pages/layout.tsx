import type { ComponentChildren } from 'preact'

import type { Page } from '../page'

/** The sections of the pages of administrators, and the views that they begin with. */
const sections = {
  keys: '',
  owners: 'owner',
  usage: 'usage',
  trail: 'audit',
  unused: 'unused',
  health: 'health',
} as const

/** A section of the pages of administrators. */
export type Section = keyof typeof sections

interface LayoutProps {
  page: Page
  title: string
  /** True if the content has two columns or a table, and so takes the whole width. */
  isWide?: boolean | undefined
  /** The section in which an administrator is; `undefined` for other users, and for users who may not enter. */
  section: Section | undefined
  children: ComponentChildren
}

/** The frame of every page: the head, the name of the product, and the content. */
export function Layout({ page, title, isWide, section, children }: LayoutProps) {
  const { language, texts, look, assets, to } = page
  return (
    <html lang={language}>
      <head>
        <meta charset="utf-8" />
        <title>{look.title === undefined ? title : `${title} · ${look.title}`}</title>
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="robots" content="noindex" />
        <link rel="icon" href={look.logo ?? 'data:,'} />
        <link rel="stylesheet" href={to(`assets/${assets.style}`)} />
        <script src={to(`assets/${assets.script}`)} defer />
      </head>
      <body>
        <a class="skip" href="#content">
          {texts.skip}
        </a>
        <header class="top">
          <div class="top-inner">
            <a class="brand" href={to('')}>
              {look.logo !== undefined && <img src={look.logo} alt="" height="24" />}
              {look.title !== undefined && <span class="brand-name">{look.title}</span>}
              <span class={look.title === undefined ? 'brand-name' : 'brand-part'}>
                {texts.apiKeys}
              </span>
              {look.admin && <span class="role">{texts.admin.role}</span>}
            </a>
            {look.back && (
              <a class="back" href={look.back.href}>
                {look.back.text}
              </a>
            )}
          </div>
          {section !== undefined && <Sections page={page} current={section} />}
        </header>
        <main
          id="content"
          class={isWide ? 'wide' : 'narrow'}
          tabindex={-1}
          data-away={texts.refused.away}
        >
          {children}
        </main>
      </body>
    </html>
  )
}

/** The way from section to section of the pages of administrators. */
function Sections({ page, current }: { page: Page; current: Section }) {
  const { admin } = page.texts
  return (
    <nav class="sections" aria-label={admin.role}>
      {Object.entries(sections).map(([section, view]) => (
        <a href={page.to(view)} aria-current={section === current ? 'page' : undefined}>
          {admin.sections[section as Section]}
        </a>
      ))}
    </nav>
  )
}

/** A message at the top of the content. It is announced to screen readers when the page opens. */
export function Banner({
  kind,
  children,
}: {
  kind: 'good' | 'bad' | 'note'
  children: ComponentChildren
}) {
  return (
    <div class={`banner ${kind}`} role={kind === 'bad' ? 'alert' : 'status'}>
      {children}
    </div>
  )
}

interface CrumbsProps {
  page: Page
  /** The view at which the way begins: the list of keys, unless it is another. */
  root?: { text: string; href: string }
  name?: string | undefined
  href?: string | undefined
}

/** The way from a view back to the view before, and to the list. */
export function Crumbs({ page, root, name, href }: CrumbsProps) {
  const { text, href: start } = root ?? { text: page.texts.apiKeys, href: page.to('') }
  return (
    <nav class="crumbs" aria-label={page.texts.crumbs}>
      <a href={start}>{text}</a>
      {name !== undefined && href !== undefined && (
        <>
          <span aria-hidden="true">/</span>
          <a href={href}>
            <bdi>{name}</bdi>
          </a>
        </>
      )}
    </nav>
  )
}
