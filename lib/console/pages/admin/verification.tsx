import type { AuditFault } from '../../../audit/faults'
import type { AuditVerification } from '../../../audit/verify'
import type { AuditProgress } from '../../../keys/fields'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Field } from '../fields'
import { Fact } from '../key-details'
import { Banner, Crumbs } from '../layout'
import { CopyButton } from '../reveal'
import { Cell, Row, RowHeading, Table } from '../table'

interface FormProps {
  page: Page
  /** The end of the trail that was pasted. */
  head: string
  problem: Problem | undefined
}

/** The form that starts a verification of the audit trail. */
export function VerifyForm({ page, head, problem }: FormProps) {
  const { admin, form } = page.texts
  const { verification } = admin
  const general = problem?.general
  return (
    <>
      <Head page={page} />
      <p class="lead">{verification.lead}</p>
      {general !== undefined && <Banner kind="bad">{general}</Banner>}
      <form
        method="post"
        action={page.to('audit/verification')}
        autocomplete="off"
        data-once
        novalidate
      >
        <Field
          name="head"
          label={admin.fields.head}
          hint={verification.headHint}
          optional={form.optional}
          problem={problem}
        >
          {(attributes) => (
            <textarea name="head" rows={3} class="code" spellcheck={false} {...attributes}>
              {`\n${head}`}
            </textarea>
          )}
        </Field>
        <div class="actions">
          <button class="button primary">{verification.submit}</button>
        </div>
      </form>
    </>
  )
}

function Head({ page }: { page: Page }) {
  const { sections, verification } = page.texts.admin
  return (
    <>
      <Crumbs page={page} root={{ text: sections.trail, href: page.to('audit') }} />
      <h1>{verification.title}</h1>
    </>
  )
}

/** The beginning of the page of a verification, which is sent before its result is known. */
export function Running({ page }: { page: Page }) {
  const { verification } = page.texts.admin
  return (
    <>
      <Head page={page} />
      <p class="lead running">
        {verification.running}. {verification.stay}
      </p>
    </>
  )
}

/** A line that says how far a verification is. The style shows the last one only. */
export function Progress({ page, verified, total }: AuditProgress & { page: Page }) {
  const { texts, formats } = page
  const { verification } = texts.admin
  return (
    <p class="progress">
      <progress value={verified} max={Math.max(total, 1)} aria-label={verification.running} />
      {verification.progress(formats.number(verified), formats.number(total))}
    </p>
  )
}

/** The result of a verification. */
export function Verified({ page, result }: { page: Page; result: AuditVerification }) {
  const { texts, formats, to } = page
  const { verification } = texts.admin
  const { isIntact, faults, head, cannotFind } = result
  const facts = [
    [verification.entries, result.entries],
    [verification.pruned, result.pruned],
    [verification.adopted, result.adopted],
    [verification.unsealed, result.unsealed],
    [verification.unverifiableEntries, result.unverifiable],
  ] as const
  const outcome = faults.length > 0 ? verification.broken : verification.unverifiable
  return (
    <div class="verified">
      <Banner kind={isIntact ? 'good' : 'bad'}>
        <strong>{isIntact ? verification.intact : outcome}</strong>
      </Banner>
      <dl class="card facts-list">
        {facts.map(([label, count], index) => (
          <>{(index === 0 || count > 0) && <Fact label={label}>{formats.number(count)}</Fact>}</>
        ))}
      </dl>
      {faults.length > 0 && <Faults page={page} faults={faults} />}
      {head && (
        <section class="card" aria-labelledby="head-label">
          <h2 id="head-label">{verification.head}</h2>
          <p class="hint">{verification.headLead}</p>
          <div class="copyable">
            <code id="head" class="whole notranslate" tabindex={0} aria-labelledby="head-label">
              {JSON.stringify(head)}
            </code>
            <CopyButton page={page} of="head" />
          </div>
        </section>
      )}
      <details class="cannot-find">
        <summary>{verification.cannotFind}</summary>
        <ul lang="en">
          {cannotFind.map((sentence) => (
            <li>{sentence}</li>
          ))}
        </ul>
      </details>
      <div class="actions">
        <a class="button" href={to('audit/verification')}>
          {verification.again}
        </a>
      </div>
    </div>
  )
}

function Faults({ page, faults }: { page: Page; faults: readonly AuditFault[] }) {
  const { texts, formats } = page
  const { verification } = texts.admin
  return (
    <section class="card" aria-labelledby="faults">
      <h2 id="faults">{verification.faults}</h2>
      <Table
        class="rows brief"
        headings={[verification.fault, verification.place, verification.entry]}
      >
        {faults.map(({ kind, message, position, eventId }) => (
          <Row>
            <RowHeading>
              {verification.kinds[kind]}
              <span class="reason" lang="en">
                {message}
              </span>
            </RowHeading>
            <Cell label={verification.place}>
              {position === null ? '–' : formats.number(position)}
            </Cell>
            <Cell label={verification.entry}>{eventId ?? '–'}</Cell>
          </Row>
        ))}
      </Table>
      {faults.length >= mostFaults && (
        <p class="hint">{verification.firstFaults(formats.number(faults.length))}</p>
      )}
    </section>
  )
}

/** A verification reports no more. */
const mostFaults = 100
