import { bindingFields, boundBefore, type BindingValues } from '../bindings'
import type { Problem } from '../faults'
import type { Page } from '../page'
import { Fault, Field } from './fields'

interface RestrictionProps {
  page: Page
  addresses: string
  bindings: readonly BindingValues[]
  /** The bindings of the key, for the form to send back. */
  bound: string
  problem: Problem | undefined
}

/** The fields from where and for what a key may be used. They are closed unless they have something to show. */
export function Restrictions({ page, addresses, bindings, bound, problem }: RestrictionProps) {
  const { form } = page.texts
  const isUsed = addresses !== '' || bindings.some(({ ids, isNone }) => ids !== '' || isNone)
  const isWrong = [...(problem?.fields.keys() ?? [])].some((name) =>
    /^(allowedIps|resources)/.test(name),
  )
  return (
    <details class="restrictions" open={isUsed || isWrong}>
      <summary>
        {bindings.length > 0 ? form.restrictions : form.restrictAddresses}
        <span class="optional"> ({form.optional})</span>
      </summary>
      <Field name="allowedIps" label={form.addresses} hint={form.addressesHint} problem={problem}>
        {(attributes) => (
          // The first line break of a text area is not part of its value.
          <textarea name="addresses" rows={2} class="code" spellcheck={false} {...attributes}>
            {`\n${addresses}`}
          </textarea>
        )}
      </Field>
      {bindings.length > 0 && (
        <fieldset class="field bindings">
          <legend>{form.resources}</legend>
          <p class="hint">{form.resourcesHint}</p>
          <input type="hidden" name={boundBefore} value={bound} />
          {bindings.map((binding) => (
            <Binding page={page} binding={binding} problem={problem} />
          ))}
          <Fault name="resources" fault={problem?.fields.get('resources')} />
        </fieldset>
      )}
    </details>
  )
}

interface BindingProps {
  page: Page
  binding: BindingValues
  problem: Problem | undefined
}

/** The field for the ids of a type. A key that is bound to no resource of the type stays so, unless the user says otherwise. */
function Binding({ page, binding: { type, ids, isNone }, problem }: BindingProps) {
  const names = bindingFields(type)
  return (
    <Field name={`resources/${type}`} label={type} problem={problem}>
      {(attributes) => (
        <>
          {isNone && (
            <label class="check">
              <input type="checkbox" name={names.none} checked />
              <span>{page.texts.form.noResource}</span>
            </label>
          )}
          <textarea
            name={names.ids}
            rows={2}
            class="code"
            spellcheck={false}
            dir="auto"
            {...attributes}
          >
            {`\n${ids}`}
          </textarea>
        </>
      )}
    </Field>
  )
}
