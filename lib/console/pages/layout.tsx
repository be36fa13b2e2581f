import type { ComponentChildren } from 'preact'

import type { Page } from '../page'

interface LayoutProps {
  page: Page
  title: string
  /** True if the content has two columns or a table, and so takes the whole width. */
  isWide?: boolean | undefined
  children: ComponentChildren
}

/** The frame of every page: the head, the name of the product, and the content. */
export function Layout({ page, title, isWide, children }: LayoutProps) {
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
            </a>
            {look.back && (
              <a class="back" href={look.back.href}>
                {look.back.text}
              </a>
            )}
          </div>
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

/** The way from a view back to the list. */
export function Crumbs({ page, name, id }: { page: Page; name?: string; id?: string }) {
  return (
    <nav class="crumbs" aria-label={page.texts.apiKeys}>
      <a href={page.to('')}>{page.texts.apiKeys}</a>
      {name !== undefined && id !== undefined && (
        <>
          <span aria-hidden="true">/</span>
          <a href={page.to(id)}>
            <bdi>{name}</bdi>
          </a>
        </>
      )}
    </nav>
  )
}
