import type { ComponentChildren } from 'preact'

import type { Health } from '../../../verification/health'
import type { Page } from '../../page'
import { Fact } from '../key-details'
import { Banner } from '../layout'

interface HealthProps {
  page: Page
  health: Health
}

/** The state of verification in the process that answers. */
export function HealthPage({ page, health }: HealthProps) {
  const { health: texts } = page.texts.admin
  const { ok, reason } = health
  const state = ok ? (reason === null ? texts.ok : texts.limping) : texts.notOk
  return (
    <>
      <h1>{texts.title}</h1>
      <p class="lead">{texts.lead}</p>
      <Banner kind={ok ? (reason === null ? 'good' : 'note') : 'bad'}>
        <strong>{state}</strong>
        {reason !== null && (
          <>
            {' '}
            <span lang="en">{reason}</span>
          </>
        )}
      </Banner>
      <div class="health">
        <Changes page={page} health={health} />
        <Cache page={page} health={health} />
        <Background page={page} health={health} />
        <LivingKeys page={page} health={health} />
      </div>
    </>
  )
}

function Facts({
  id,
  title,
  children,
}: {
  id: string
  title: string
  children: ComponentChildren
}) {
  return (
    <section class="card" aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      <dl>{children}</dl>
    </section>
  )
}

function Changes({ page, health }: HealthProps) {
  const { texts, formats } = page
  const { health: words } = texts.admin
  const { feed, lease, lagMs, revision, listener, clockOffsetMs } = health
  return (
    <Facts id="changes" title={words.changes}>
      <Fact label={words.feed}>{words.feeds[feed]}</Fact>
      <Fact label={words.lease}>
        {lease.isLive ? words.leaseFor(formats.milliseconds(lease.remainingMs)) : words.noLease}
      </Fact>
      <Fact label={words.lag}>{lagMs === null ? '–' : words.ago(formats.milliseconds(lagMs))}</Fact>
      <Fact label={words.revision}>{revision === null ? '–' : formats.number(revision)}</Fact>
      <Fact label={words.listener}>{words.listeners[listener]}</Fact>
      <Fact label={words.clock}>
        {clockOffsetMs === null ? '–' : formats.milliseconds(clockOffsetMs)}
      </Fact>
    </Facts>
  )
}

function Cache({ page, health: { cache } }: HealthProps) {
  const { texts, formats } = page
  const { health: words } = texts.admin
  return (
    <Facts id="cache" title={words.cache}>
      <Fact label={words.cachedKeys}>
        {words.ofMost(formats.number(cache.keys), formats.number(cache.maxKeys))}
      </Fact>
      <Fact label={words.hitRate}>
        {cache.hitRate === null ? '–' : formats.percent(cache.hitRate)}
      </Fact>
      <Fact label={words.unknown}>{formats.number(cache.unknownHashes)}</Fact>
    </Facts>
  )
}

function Background({ page, health: { usage, audit } }: HealthProps) {
  const { texts, formats } = page
  const { health: words } = texts.admin
  return (
    <Facts id="background" title={words.background}>
      <Fact label={words.pendingUses}>{formats.number(usage.pending)}</Fact>
      <Fact label={words.droppedUses}>{formats.number(usage.dropped)}</Fact>
      <Fact label={words.waiting}>{formats.number(audit.waiting)}</Fact>
      <Fact label={words.lost}>{formats.number(audit.lost)}</Fact>
    </Facts>
  )
}

function LivingKeys({ page, health }: HealthProps) {
  const { texts, formats, to } = page
  const { health: words } = texts.admin
  const { livingKeys, refusedKeys = [], unknownPermissions = [] } = health
  if (!livingKeys) {
    return (
      <section class="card" aria-labelledby="living">
        <h2 id="living">{words.living}</h2>
        <p class="hint">{words.countLead}</p>
        <div class="actions">
          <a class="button" href={`${to('health')}?count=living`}>
            {words.count}
          </a>
        </div>
      </section>
    )
  }

  const bySecret = livingKeys.map(({ secret, secretId, keys }): [string, string] => {
    const unknown = secretId === null ? words.noSecret : words.unknownSecret(secretId)
    const name = secret === null ? unknown : words.secretNumber(formats.number(secret + 1))
    return [name, formats.number(keys)]
  })
  const refused = refusedKeys.map(({ keyPrefix, environment, keys }): [string, string] => [
    environment === null ? keyPrefix : `${keyPrefix} (${environment})`,
    formats.number(keys),
  ])
  const unknown = unknownPermissions.map(({ name, keys }): [string, string] => [
    name,
    formats.number(keys),
  ])
  return (
    <Facts id="living" title={words.living}>
      {bySecret.map(([name, count]) => (
        <Fact label={name}>{count}</Fact>
      ))}
      <Fact label={words.refused}>
        <Counts counts={refused} none={words.noneUnknown} />
      </Fact>
      <Fact label={words.unknownPermissions}>
        <Counts counts={unknown} none={words.noneUnknown} />
      </Fact>
    </Facts>
  )
}

function Counts({ counts, none }: { counts: readonly [string, string][]; none: string }) {
  if (counts.length === 0) return <>{none}</>
  return (
    <ul>
      {counts.map(([name, count]) => (
        <li>
          <code>{name}</code>: {count}
        </li>
      ))}
    </ul>
  )
}
