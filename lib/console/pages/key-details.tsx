import type { ComponentChildren } from 'preact'

import { appFieldsOf } from '../app-fields'
import { OwnerLink } from './admin/owner-parts'
import { ExposureOfKey } from './exposure'
import { LimitsOfKey } from './key-limits'
import type { KeyProps } from './key-props'
import { Ago, Day, Exactly, wordsFor } from './parts'

/** The facts of a key. */
export function Details(props: KeyProps) {
  const { page, apiKey, descriptions } = props
  const { key, list, times } = page.texts
  const { lastUsedAt, lastUsedFrom, createdAt, expiresAt, idleExpiresAt, revokedAt, allowedIps } =
    apiKey
  const { environment, resources } = appFieldsOf(apiKey)
  return (
    <section class="card" aria-labelledby="details">
      <h2 id="details">{key.details}</h2>
      <dl>
        <Fact label={key.lastUsed}>
          {lastUsedAt ? (
            <>
              <Ago page={page} at={lastUsedAt} />
              {lastUsedFrom !== null && ` ${key.from(lastUsedFrom)}`}{' '}
              <span class="none exact">
                <Exactly page={page} at={lastUsedAt} />
              </span>
            </>
          ) : (
            times.never
          )}
        </Fact>
        {page.look.admin && <Hands page={page} apiKey={apiKey} />}
        <Fact label={list.columns.created}>
          <Day page={page} at={createdAt} />
        </Fact>
        <Fact label={list.columns.expires}>
          {expiresAt ? <Exactly page={page} at={expiresAt} /> : times.noExpiry}
        </Fact>
        {idleExpiresAt && (
          <Fact label={key.idleExpiry}>
            <Exactly page={page} at={idleExpiresAt} />
          </Fact>
        )}
        {revokedAt && (
          <Fact label={key.revokedAt}>
            <Exactly page={page} at={revokedAt} />
          </Fact>
        )}
        {apiKey.exposed && (
          <Fact label={page.texts.exposure.label}>
            <ExposureOfKey page={page} exposed={apiKey.exposed} />
          </Fact>
        )}
        {environment !== null && <Fact label={key.environment}>{environment}</Fact>}
        <Fact label={key.permissions}>
          <Lines texts={wordsFor(descriptions, apiKey.permissions)} />
        </Fact>
        <Fact label={key.addresses}>
          {allowedIps ? <Lines texts={allowedIps} isCode /> : key.anyAddress}
        </Fact>
        {resources !== null && (
          <Fact label={key.resources}>
            <Lines texts={bindingsOf(resources)} />
          </Fact>
        )}
        <Fact label={key.limits}>
          <LimitsOfKey {...props} />
        </Fact>
      </dl>
    </section>
  )
}

/** The owner of a key, and the user or administrator who made it. */
function Hands({ page, apiKey }: Pick<KeyProps, 'page' | 'apiKey'>) {
  const { admin } = page.texts
  return (
    <>
      <Fact label={admin.fields.owner}>
        <OwnerLink page={page} owner={apiKey.owner} />
      </Fact>
      <Fact label={admin.key.madeBy}>
        {apiKey.createdBy === null ? admin.key.theApp : <bdi>{apiKey.createdBy}</bdi>}
      </Fact>
      <Fact label={admin.key.id}>
        <code>{apiKey.id}</code>
      </Fact>
    </>
  )
}

/** Returns a text for each type of the resources to which a key is bound. */
function bindingsOf(resources: Readonly<Record<string, readonly string[]>>): string[] {
  return Object.entries(resources).map(([type, ids]) => `${type}: ${ids.join(', ')}`)
}

/** A fact with its label. */
export function Fact({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{children}</dd>
    </div>
  )
}

function Lines({ texts, isCode }: { texts: readonly string[]; isCode?: boolean }) {
  return (
    <ul>
      {texts.map((text) => (
        <li>{isCode ? <code>{text}</code> : text}</li>
      ))}
    </ul>
  )
}
