import type { LimitState } from '../../errors'
import { stateOf } from '../key-state'
import type { Page } from '../page'
import type { KeyProps } from './key-props'
import { Ago } from './parts'

/** The limits of a key, and how much is left of each at the moment. */
export function LimitsOfKey({ page, apiKey, limits, limitStates, isCountShared }: KeyProps) {
  const { texts, formats } = page
  const { key } = texts
  if (limits.length === 0) return <>{key.noLimits}</>

  // A key that does not work uses nothing up.
  const states = stateOf(apiKey) === 'active' ? limitStates : []
  return (
    <>
      <ul class="limits">
        {limits.map(({ limit, windowSeconds }, place) => (
          <li>
            {key.limit(formats.number(limit), formats.duration(windowSeconds))}{' '}
            <Left page={page} state={states?.[place]} />
          </li>
        ))}
      </ul>
      {states === null && <p class="hint">{key.limitsUnknown}</p>}
      {!isCountShared && states !== null && states.length > 0 && (
        <p class="hint">{key.limitsOfProcess}</p>
      )}
    </>
  )
}

/** How much of a limit is left, as a bar and in words, and when it begins again. */
function Left({ page, state }: { page: Page; state: LimitState | undefined }) {
  if (!state) return null

  const { key } = page.texts
  const { limit, remaining, resetMs } = state
  const used = limit - remaining
  // Also little use must be visible.
  const width = used === 0 ? 0 : Math.max((used / limit) * 100, 1)
  return (
    <span class={remaining === 0 ? 'left none-left' : 'left'}>
      <svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect class="whole-limit" width="100" height="6" />
        <rect class="used" width={Math.round(width * 10) / 10} height="6" />
      </svg>
      {key.left(page.formats.number(remaining))}
      {used > 0 && (
        <>
          , {key.fullAgain} <Ago page={page} at={new Date(page.now.getTime() + resetMs)} />
        </>
      )}
    </span>
  )
}
