import { parse, type HTMLElement } from 'node-html-parser'

import type { Http } from './http'

/** A page that a visitor has opened. */
export interface OpenPage {
  status: number
  headers: Record<string, string>
  /** The path with its query. */
  url: string
  html: string
  root: HTMLElement
  /** The text of the content, with single spaces. */
  text: string
}

type Fields = Record<string, string | readonly string[]>

/** The header by which a browser says that its own page sends a form. */
export const fromOwnPage = { 'Sec-Fetch-Site': 'same-origin' }

/** A user of the pages in a browser without scripts. */
export function createVisitor(http: Http, headers: Record<string, string>) {
  async function send(method: 'get' | 'post', url: string, body?: string): Promise<OpenPage> {
    const sender = http.set({ ...headers, ...(method === 'post' && fromOwnPage) })
    const request = sender[method](url)
    const answer = await (
      method === 'post' ? request.type('form').send(body ?? '') : request
    ).redirects(0)
    const { location } = answer.headers
    if (answer.status === 303) return send('get', resolve(String(location), url))

    const html = answer.text ?? ''
    const root = parse(html)
    const text = textOf(root.querySelector('main'))
    return { status: answer.status, headers: answer.headers, url, html, root, text }
  }

  return {
    open: (url: string) => send('get', url),

    /** Follows the link with a text. */
    follow(page: OpenPage, text: string) {
      const link = page.root.querySelectorAll('a').find((link) => textOf(link).includes(text))
      if (!link) throw new Error(`There is no link "${text}" in: ${page.text}`)
      return send('get', resolve(link.getAttribute('href') ?? '', page.url))
    },

    /** Presses the button with a text, after filling fields of its form. */
    press(page: OpenPage, text: string, fields: Fields = {}) {
      const form = formWith(page, text)
      const query = new URLSearchParams()
      for (const [name, values] of Object.entries({ ...fieldsOf(form), ...fields })) {
        for (const value of [values].flat()) query.append(name, value)
      }
      const action = resolve(form.getAttribute('action') || page.url, page.url)
      return form.getAttribute('method') === 'post'
        ? send('post', action, query.toString())
        : send('get', `${action.split('?')[0]}?${query}`)
    },
  }
}

/** Returns the form that has a button with a text. */
export function formWith({ root, text: content }: OpenPage, text: string): HTMLElement {
  const form = root
    .querySelectorAll('form')
    .find((form) => form.querySelectorAll('button').some((button) => textOf(button) === text))
  if (!form) throw new Error(`There is no button "${text}" in: ${content}`)
  return form
}

/** Returns what a browser would send with a form that the user does not touch. */
export function fieldsOf(form: HTMLElement): Record<string, string[]> {
  const fields: Record<string, string[]> = {}
  for (const control of form.querySelectorAll('input, textarea, select')) {
    const name = control.getAttribute('name')
    if (name === undefined) continue
    const value = valueOf(control)
    if (value !== undefined) (fields[name] ??= []).push(value)
  }
  return fields
}

function valueOf(control: HTMLElement): string | undefined {
  if (control.tagName === 'TEXTAREA') return control.text.replace(/^\n/, '')
  if (control.tagName === 'SELECT') {
    const options = control.querySelectorAll('option')
    const chosen = options.find((option) => option.hasAttribute('selected')) ?? options[0]
    return chosen?.getAttribute('value') ?? ''
  }
  const isBox = control.getAttribute('type') === 'checkbox'
  return isBox && !control.hasAttribute('checked')
    ? undefined
    : (control.getAttribute('value') ?? '')
}

/** Returns the fault beside the field with a label. */
export function faultOf({ root }: OpenPage, label: string): string | undefined {
  const field = root
    .querySelectorAll('.field')
    .find((field) => textOf(field.querySelector('label, legend')).startsWith(label))
  if (!field) throw new Error(`There is no field "${label}"`)
  const fault = field.querySelector('.fault')
  return fault ? textOf(fault) : undefined
}

/** Returns the rows of the list: the texts of their cells, by the names of the columns. */
export function rowsOf({ root }: OpenPage): Record<string, string>[] {
  return root.querySelectorAll('table.keys tbody tr').map((row) => {
    const cells = row
      .querySelectorAll('td')
      .map((cell): [string, string] => [cell.getAttribute('data-label') ?? '', textOf(cell)])
    return Object.fromEntries([['Name', textOf(row.querySelector('th a'))], ...cells])
  })
}

/** Returns the facts of a key, by their labels. */
export function factsOf({ root }: OpenPage): Record<string, string> {
  return Object.fromEntries(
    root
      .querySelectorAll('#key dl > div')
      .map((fact) => [textOf(fact.querySelector('dt')), textOf(fact.querySelector('dd'))]),
  )
}

/** Returns the text of an element, with single spaces. */
export function textOf(element: HTMLElement | null): string {
  return (element?.textContent ?? '').replaceAll(/\s+/g, ' ').trim()
}

function resolve(address: string, from: string): string {
  const { pathname, search } = new URL(address, `http://app.test${from}`)
  return pathname + search
}
