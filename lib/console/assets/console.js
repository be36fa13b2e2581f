// Adds what needs a script to pages that work without it: copying, times in the reader's zone, fresh lists, one request per form.

showLocalTimes(document)
for (const button of document.querySelectorAll('[data-copy]')) prepareCopy(button)
for (const form of document.querySelectorAll('form[data-once]')) sendOnce(form)
keepFresh()
forgetSecret()

/** Shows times in the reader's zone. The pages come with times in UTC. */
function showLocalTimes(root) {
  const language =
    document.documentElement.lang === 'en' ? undefined : document.documentElement.lang
  const time = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' })
  const day = new Intl.DateTimeFormat(language, { dateStyle: 'medium' })

  for (const element of root.querySelectorAll('time[data-show]')) {
    const at = new Date(element.dateTime)
    const { show } = element.dataset
    if (element.title) element.title = time.format(at)
    if (show === 'time') element.textContent = time.format(at)
    if (show === 'day') element.textContent = day.format(at)
  }
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
    state.textContent = isCopied ? '' : failed
    if (!isCopied) {
      getSelection().selectAllChildren(text)
      return
    }
    button.textContent = copied
    setTimeout(() => (button.textContent = label), 2_000)
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

/** Has a form sent once, however often its button is clicked. It can be sent again when the user comes back. */
function sendOnce(form) {
  let isSent = false
  form.addEventListener('submit', (event) => {
    if (isSent) event.preventDefault()
    isSent = true
    form.querySelector('button')?.setAttribute('aria-disabled', 'true')
  })
  addEventListener('pageshow', () => {
    isSent = false
    form.querySelector('button')?.removeAttribute('aria-disabled')
  })
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
  if (!fresh || part.contains(document.activeElement) || part.querySelector('details[open]')) return

  showLocalTimes(fresh)
  if (part.innerHTML !== fresh.innerHTML) part.replaceChildren(...fresh.childNodes)
}
