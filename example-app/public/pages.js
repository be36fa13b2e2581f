// Sends the form that tries a key without leaving the page: the browser keeps no form with a key in its history, and the key can be sent
// to the next route.

const form = document.querySelector('form[data-try]')
if (form) {
  const answer = document.getElementById('answer')

  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    const sent = new URLSearchParams(new FormData(form))
    answer.setAttribute('aria-busy', 'true')
    const page = await fetch(form.action, { method: 'POST', body: sent }).then(
      async (response) => new DOMParser().parseFromString(await response.text(), 'text/html'),
      () => null,
    )
    const fresh = page?.getElementById('answer')
    if (fresh) answer.replaceChildren(...fresh.childNodes)
    else answer.textContent = answer.dataset.away
    answer.removeAttribute('aria-busy')
  })

  // Back shows no key.
  addEventListener('pagehide', () => form.reset())
}
