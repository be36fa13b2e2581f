import type { OwnerInput } from '../../admin/owner-input'
import { Confirm, LastUse, type ConfirmProps } from '../confirm'
import { KeyEnds } from '../parts'
import { ReasonField } from '../question'
import { OwnerField, OwnerLink } from './owner-parts'

interface ActionProps extends ConfirmProps {
  reason: string
}

/** The page that asks before an administrator suspends a key. */
export function Suspend({ page, apiKey, problem, reason }: ActionProps) {
  const { admin } = page.texts
  return (
    <Confirm page={page} apiKey={apiKey} problem={problem} view="suspend" texts={admin.suspend}>
      <div class="facts">
        <KeyEnds ends={apiKey} />
        <LastUse page={page} apiKey={apiKey} />
      </div>
      <ReasonField page={page} reason={reason} problem={problem} />
    </Confirm>
  )
}

/** The form with which an administrator hands a key on to another owner. */
export function Transfer({ page, apiKey, problem, reason, to }: ActionProps & { to: OwnerInput }) {
  const { transfer } = page.texts.admin
  return (
    <Confirm page={page} apiKey={apiKey} problem={problem} view="transfer" texts={transfer}>
      <div class="facts">
        <KeyEnds ends={apiKey} />
        <p>
          {transfer.now} <OwnerLink page={page} owner={apiKey.owner} />
        </p>
        <p class="hint">{transfer.warning}</p>
      </div>
      <OwnerField page={page} label={transfer.to} value={to} problem={problem} />
      <ReasonField page={page} reason={reason} problem={problem} />
    </Confirm>
  )
}
