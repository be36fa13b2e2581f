// Adds what needs a script to pages that work without it: copying, times in the reader's zone, exact times, the numbers of a chart, fresh
// lists, one request per form, and forms that outlast a server that is away.

const language = document.documentElement.lang === 'en' ? undefined : document.documentElement.lang
const time = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' })
const day = new Intl.DateTimeFormat(language, { dateStyle: 'medium' })
let isExact = false

prepare(document)
for (const button of document.querySelectorAll('[data-copy]')) prepareCopy(button)
document.querySelector('[aria-invalid]')?.focus()
offerExactTimes()
showNumbersOfChart()
keepFresh()
forgetSecret()

/** Prepares a page, or a part of it that has come anew. */
function prepare(root) {
  showTimes(root)
  for (const form of root.querySelectorAll('form[data-once]')) sendOnce(form)
  for (const button of root.querySelectorAll('[data-exact-times]')) {
    button.hidden = false
    button.setAttribute('aria-pressed', isExact)
  }
}

/** Shows times in the reader's zone. The pages come with times in UTC. */
function showTimes(root) {
  for (const element of root.querySelectorAll('time[data-show]')) {
    const at = new Date(element.dateTime)
    const { show } = element.dataset
    if (element.title) element.title = time.format(at)
    if (show === 'time') element.textContent = time.format(at)
    if (show === 'day') element.textContent = day.format(at)
    if (show === 'distance') {
      element.dataset.distance ??= element.textContent
      element.textContent = isExact ? time.format(at) : element.dataset.distance
    }
  }
}

/** Has buttons show exact times in place of distances, for readers who cannot hover. */
function offerExactTimes() {
  document.addEventListener('click', ({ target }) => {
    if (!target.closest('[data-exact-times]')) return
    isExact = !isExact
    for (const button of document.querySelectorAll('[data-exact-times]')) {
      button.setAttribute('aria-pressed', isExact)
    }
    showTimes(document)
  })
}

/** Shows the numbers of the bar under the pointer, or under the finger, below the chart. */
function showNumbersOfChart() {
  document.addEventListener('pointerover', ({ target }) => {
    const bar = target instanceof Element && target.closest('.chart .bar')
    if (!bar) return

    const { at, label, counts } = bar.dataset
    // The browser would show it besides, a second later.
    bar.querySelector('title')?.remove()
    const chart = bar.closest('.chart')
    chart.querySelector('.chosen')?.classList.remove('chosen')
    bar.classList.add('chosen')
    const when = at ? time.format(new Date(at)) : label
    chart.querySelector('.numbers-of-bar').textContent = `${when}: ${counts}`
  })
}

/** Shows a button that copies a text. It says if the browser has refused that, and selects the text instead. */
function prepareCopy(button) {
  const { copy, copied, failed } = button.dataset
  const text = document.getElementById(copy)
  const state = document.querySelector(`[data-copy-state="${copy}"]`)
  const label = button.textContent
  button.hidden = false

  button.addEventListener('click', async () => {
    const isCopied = await write(text.textContent)
    // Screen readers read it out. It stands on the button, too.
    state.classList.toggle('unseen', isCopied)
    state.textContent = isCopied ? copied : failed
    if (!isCopied) {
      getSelection().selectAllChildren(text)
      return
    }
    button.textContent = copied
    setTimeout(() => {
      button.textContent = label
      state.textContent = ''
    }, 2_000)
  })
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return false
  }
}

/**
 * Has a form sent once, however often its button is clicked, and only if the server answers: the page of the browser that says otherwise
 * would not have what was typed. The form can be sent again when the user comes back.
 */
function sendOnce(form) {
  let isSent = false
  let isChecked = false
  let notice

  function setSent(value) {
    isSent = value
    for (const button of form.querySelectorAll('button')) {
      if (value) button.setAttribute('aria-disabled', 'true')
      else button.removeAttribute('aria-disabled')
    }
  }

  form.addEventListener('submit', async (event) => {
    if (isChecked) return
    event.preventDefault()
    if (isSent) return

    setSent(true)
    notice?.remove()
    isChecked = await isServerThere()
    if (isChecked) {
      form.requestSubmit(event.submitter)
      return
    }
    setSent(false)
    notice = document.createElement('div')
    notice.className = 'banner bad'
    notice.setAttribute('role', 'alert')
    notice.textContent = document.querySelector('main').dataset.away
    const place = form.querySelector('.actions') ?? form.closest('.title') ?? form
    place.before(notice)
  })
  addEventListener('pageshow', () => {
    isChecked = false
    setSent(false)
  })
}

/** True if the server answers. An answer that its proxy gives in its place does not count. */
async function isServerThere() {
  const { src } = document.querySelector('script[src]')
  const answer = await fetch(src, { method: 'HEAD', cache: 'no-store' }).catch(() => null)
  return answer !== null && answer.status < 500
}

/** Takes the secret out of the page when the user leaves it, so that Back does not show it. */
function forgetSecret() {
  const secret = document.querySelector('[data-secret]')
  if (!secret) return

  addEventListener('pagehide', () => {
    secret.remove()
    document.querySelector('[data-secret-gone]').hidden = false
  })
}

/** Loads the page again every half minute while it is visible, and when it becomes visible, and shows the parts that have changed. */
function keepFresh() {
  const everyMs = 30_000
  const parts = [...document.querySelectorAll('[data-live]')]
  if (parts.length === 0) return

  let freshAt = Date.now()
  async function refresh() {
    if (document.hidden || Date.now() - freshAt < 1_000) return
    freshAt = Date.now()
    const answer = await fetch(location.href, { headers: { Accept: 'text/html' } }).catch(
      () => null,
    )
    if (!answer) return

    const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
    if (page.querySelector('[data-ended]')) return location.reload()
    if (!answer.ok) return
    for (const part of parts) replace(part, page.getElementById(part.id))
  }

  setInterval(refresh, everyMs)
  document.addEventListener('visibilitychange', refresh)
  addEventListener('focus', refresh)
}

/** Replaces the content of a part, unless the user is at work in it. */
function replace(part, fresh) {
  const isInUse =
    part.contains(document.activeElement) || part.querySelector('details[open], .chosen')
  if (!fresh || isInUse) return

  prepare(fresh)
  if (part.innerHTML !== fresh.innerHTML) part.replaceChildren(...fresh.childNodes)
}
