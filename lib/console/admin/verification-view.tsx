import type { AuditHead } from '../../audit/head'
import { InvalidInputError } from '../../errors'
import type { AuditProgress } from '../../keys/fields'
import { problemFrom } from '../faults'
import { valueOf, type Form } from '../form'
import { Progress, Running, Verified, VerifyForm } from '../pages/admin/verification'
import type { ConsoleParts, Output, Route } from '../router'

/** The fault of a text that is no end of a trail. */
const noHead = 'must be the end of a trail as it was exported'

/** How long the page is without a new line at most, so that no proxy takes the answer for dead. */
const longestPauseMs = 5_000

/**
 * Creates the view that verifies the audit trail. Its answer is sent bit by bit while the verification runs. So the page needs no script
 * to show progress, and no process has to know of a verification in another process. If the user leaves the page, the verification ends.
 */
export function createVerificationView({ lifecycle, parse }: ConsoleParts): Route {
  return {
    async show({ page, form }, refused) {
      const { title } = page.texts.admin.verification
      const problem = refused && problemFrom(refused, page.texts, page.texts.admin.fields)
      const content = <VerifyForm page={page} head={valueOf(form, 'head')} problem={problem} />
      return { title, content, section: 'trail' }
    },

    async act({ page, form }) {
      const head = readHead(form, parse)
      const { title } = page.texts.admin.verification
      const progress = createProgress()
      const verification = lifecycle.verifyAuditTrail({
        ...(head && { head }),
        onProgress: progress.report,
      })
      // Until it has begun, a refusal is an answer of its own.
      await Promise.race([progress.begun, verification])
      return {
        title,
        content: <Running page={page} />,
        section: 'trail',
        async rest(output) {
          progress.showOn(output, (state) => <Progress page={page} {...state} />)
          output.write(<Verified page={page} result={await verification} />)
        },
      }
    },
  }
}

/** Returns the end of the trail that was pasted; `undefined` for none. */
function readHead(form: Form, parse: ConsoleParts['parse']): AuditHead | undefined {
  const text = valueOf(form, 'head').trim()
  if (text === '') return undefined
  try {
    return parse.auditVerification({ head: JSON.parse(text) }).head
  } catch (error) {
    throw new InvalidInputError([{ pointer: '#/head', message: noHead }], { cause: error })
  }
}

/** Creates the listener of a verification, which shows on a page how far it is: each hundredth, or every few seconds. */
function createProgress() {
  let begin: (() => void) | undefined
  const begun = new Promise<void>((resolve) => {
    begin = resolve
  })
  let show: ((state: AuditProgress) => void) | undefined

  return {
    /** Resolves once the verification has begun. */
    begun,

    report(state: AuditProgress) {
      begin?.()
      show?.(state)
    },

    showOn({ write, isOpen }: Output, draw: (state: AuditProgress) => Parameters<typeof write>[0]) {
      let [shownAt, shownHundredth] = [0, -1]
      show = (state) => {
        if (!isOpen()) throw new Error('The page was closed')
        const hundredth = Math.floor((state.verified / Math.max(state.total, 1)) * 100)
        if (hundredth === shownHundredth && Date.now() - shownAt < longestPauseMs) return
        ;[shownAt, shownHundredth] = [Date.now(), hundredth]
        write(draw(state))
      }
    },
  }
}
