import type { Form } from '../form'
import type { Page } from '../page'
import { Banner } from './layout'

interface RefusedProps {
  page: Page
  title: string
  sentence: string
  /** The form that was sent, which the user can send again; `undefined` if none was sent. */
  form?: Form | undefined
  /** True if no user is signed in. */
  isEnded: boolean
  /** True if trying again may help. */
  canRetry: boolean
  /** True if there is a list of keys to go to. */
  hasList: boolean
}

/** The page of a refusal. It keeps what the user typed. */
export function Refused({ page, title, sentence, form, isEnded, canRetry, hasList }: RefusedProps) {
  const { refused } = page.texts
  const signIn = isEnded ? page.look.signIn : undefined
  const isKept = form !== undefined && form.size > 0
  return (
    <div class="refused" data-ended={isEnded || undefined}>
      <h1>{title}</h1>
      <Banner kind="bad">{sentence}</Banner>
      {isKept && <Kept page={page} form={form} />}
      <div class="actions">
        {signIn !== undefined && (
          <a
            class={isKept ? 'button' : 'button primary'}
            href={signIn}
            target={isKept ? '_blank' : undefined}
          >
            {refused.signIn}
          </a>
        )}
        {canRetry && !form && (
          <a class={signIn === undefined ? 'button primary' : 'button'} href="">
            {refused.retry}
          </a>
        )}
        {!isEnded && hasList && (
          <a class="button" href={page.to('')}>
            {refused.toList}
          </a>
        )}
      </div>
    </div>
  )
}

/** The names of fields that users type in. */
const shown = ['name', 'description', 'permissions', 'addresses', 'reason'] as const

/** A form with all that was sent, which goes to the same address. */
function Kept({ page, form }: { page: Page; form: Form }) {
  const { refused, form: labels, revoke } = page.texts
  const labelOf = { ...labels, ...revoke }
  const typed = shown.flatMap((name) => {
    const values = (form.get(name) ?? []).filter((value) => value !== '')
    return values.length > 0 ? [[labelOf[name], values.join(', ')] as const] : []
  })
  return (
    <form method="post" action="" autocomplete="off" data-once>
      {[...form].flatMap(([name, values]) =>
        values.map((value) => <input type="hidden" name={name} value={value} />),
      )}
      {typed.length > 0 && (
        <section class="card">
          <h2>{refused.kept}</h2>
          <dl>
            {typed.map(([label, value]) => (
              <div>
                <dt>{label}</dt>
                <dd dir="auto">{value}</dd>
              </div>
            ))}
          </dl>
        </section>
      )}
      <div class="actions">
        <button class="button primary">{refused.send}</button>
      </div>
    </form>
  )
}
