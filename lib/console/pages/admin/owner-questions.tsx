import type { Owner } from '../../../keys/owner'
import type { ApiKeyRecord } from '../../../keys/record'
import type { Erased } from '../../../lifecycle/erase-owner'
import type { Problem } from '../../faults'
import type { Page } from '../../page'
import { Fact } from '../key-details'
import { Banner, Crumbs } from '../layout'
import { Question, ReasonField } from '../question'
import { keyCount, KeysInBrief, nameOf, ownerAddress } from './owner-parts'

/** The contents of a page that asks before an owner is changed. */
export interface QuestionProps {
  page: Page
  name: 'suspendOwner' | 'reactivateOwner' | 'revokeAll' | 'eraseOwner'
  owner: Owner
  /** How many keys of the owner are not revoked. */
  count: number
  /** The first of them. */
  apiKeys: readonly ApiKeyRecord[]
  /** The numbers of what goes if the owner is erased. */
  wouldBe?: Erased | undefined
  problem: Problem | undefined
  reason: string
}

const views = {
  suspendOwner: 'owner/suspend',
  reactivateOwner: 'owner/reactivate',
  revokeAll: 'owner/revoke-all',
  eraseOwner: 'owner/erase',
} as const

/** The page that asks before an owner is changed. It says how many keys that is about, and which. */
export function OwnerQuestion(props: QuestionProps) {
  const { page, name, owner, count, apiKeys, wouldBe, problem, reason } = props
  const { admin, cancel } = page.texts
  const { title, lead, submit } = admin[name]
  const own = ownerAddress(page, owner)
  return (
    <Question
      page={page}
      crumbs={<OwnerCrumbs page={page} owner={owner} />}
      action={page.to(views[name])}
      title={title(nameOf(page, owner))}
      lead={lead}
      problem={problem && { ...problem, general: problem.general ?? problem.fields.get('owner') }}
      submit={submit(keyCount(page, count))}
      keep={{ text: name === 'revokeAll' ? admin.revokeAll.keep : cancel, href: own }}
      isDangerous={name !== 'reactivateOwner'}
    >
      <input type="hidden" name="ownerType" value={owner.type} />
      <input type="hidden" name="ownerId" value={owner.id} />
      {wouldBe && <ErasedCounts page={page} title={admin.eraseOwner.goes} erased={wouldBe} />}
      <section class="card" aria-labelledby="keys">
        <h2 id="keys">
          {admin.owners.keys} <span class="count">{page.formats.number(count)}</span>
        </h2>
        {count === 0 ? (
          <p class="none">{admin.owners.noKeys}</p>
        ) : (
          <KeysInBrief page={page} apiKeys={apiKeys} count={count} />
        )}
      </section>
      <ReasonField
        page={page}
        reason={reason}
        problem={problem}
        requiredHint={wouldBe && admin.eraseOwner.reasonHint}
      />
    </Question>
  )
}

interface CountsProps {
  page: Page
  title: string
  erased: Erased
}

/** The numbers of what an erasing takes away, or has taken away. */
function ErasedCounts({ page, title, erased }: CountsProps) {
  const { formats, texts } = page
  const { counts } = texts.admin.eraseOwner
  return (
    <section class="card" aria-labelledby="erased">
      <h2 id="erased">{title}</h2>
      <dl>
        {(['keys', 'createdKeys', 'events', 'hours'] as const).map((name) => (
          <Fact label={counts[name]}>{formats.number(erased[name])}</Fact>
        ))}
      </dl>
    </section>
  )
}

/** The way back to an owner, and to the owners. */
export function OwnerCrumbs({ page, owner }: { page: Page; owner?: Owner }) {
  const root = { text: page.texts.admin.sections.owners, href: page.to('owner') }
  const own = owner && { name: nameOf(page, owner), href: ownerAddress(page, owner) }
  return <Crumbs page={page} root={root} {...own} />
}

interface DoneProps {
  page: Page
  owner: Owner
  /** How many keys were revoked. */
  keys: number
}

/** The page that says how many keys of an owner were revoked. */
export function AllRevoked({ page, owner, keys }: DoneProps) {
  const { admin } = page.texts
  return (
    <>
      <OwnerCrumbs page={page} owner={owner} />
      <h1>{admin.revokeAll.done(keyCount(page, keys))}</h1>
      <Banner kind="good">{admin.revokeAll.doneLead(nameOf(page, owner))}</Banner>
      <div class="actions">
        <a class="button primary" href={ownerAddress(page, owner)}>
          {admin.owners.back}
        </a>
      </div>
    </>
  )
}

/** The page that says what was erased of an owner. It does not name the owner. */
export function OwnerErased({ page, erased }: Pick<DoneProps, 'page'> & { erased: Erased }) {
  const { eraseOwner: words, owners } = page.texts.admin
  return (
    <>
      <OwnerCrumbs page={page} />
      <h1>{words.done}</h1>
      <Banner kind="good">{words.doneLead}</Banner>
      <ErasedCounts page={page} title={words.gone} erased={erased} />
      <div class="actions">
        <a class="button primary" href={page.to('owner')}>
          {owners.toOwners}
        </a>
      </div>
    </>
  )
}
