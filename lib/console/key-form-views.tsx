import type { ApiKeysError } from '../errors'
import type { ApiKeyRecord } from '../keys/record'
import type { DescribedPermission } from '../keys/permissions'
import { ownerIn } from './admin/owner-input'
import { appFieldsOf } from './app-fields'
import { bindingsIn, bindingsOf, boundBefore, readBindings } from './bindings'
import { createKey, describe, optionsOf, permissionsFor } from './calls'
import { firstPreset, readExpiry } from './expiry'
import { problemFrom } from './faults'
import { valueOf, type Form } from './form'
import type { Page } from './page'
import { KeyForm, permissionsBefore, type KeyValues, type PermissionGroup } from './pages/key-form'
import { newRequest, requestIn } from './request-name'
import { revealOnce } from './reveal'
import type { ConsoleParts, Route } from './router'

/** Creates the forms for a new key, and for changes of a key. */
export function createKeyFormViews(parts: ConsoleParts) {
  const { lifecycle, routeCommands, settings } = parts
  const { environments, maxLifetimeSeconds } = settings
  const resourceTypes = [...settings.resources.keys()]
  const descriptions = describe(settings.permissions.described)

  const create: Route = {
    async show(call, refused) {
      const { page, form } = call
      // Another key is wished for with a form that has made one, so it gets a name of its own.
      const isReused = refused?.code === 'idempotency_key_reused'
      const { name: request, at: formAt } = isReused ? newRequest() : requestIn(form)
      const permissions = await permissionsFor(parts, call)
      const content = (
        <KeyForm
          page={page}
          {...(page.look.admin && { owner: ownerIn(call) })}
          values={
            form.size > 0 ? valuesOf(form, resourceTypes) : emptyValues(permissions, settings)
          }
          environments={environments.names}
          descriptions={descriptions}
          groups={groupsOf(permissions, page)}
          problem={refused && problemOf(refused, page)}
          maxLifetimeSeconds={maxLifetimeSeconds}
          formAt={formAt}
          request={request}
        />
      )
      return { title: page.texts.form.create, content }
    },

    async act(call) {
      const { name: idempotencyKey, at } = requestIn(call.form)
      const apiKey = {
        ...inputOf(call.form, resourceTypes),
        ...(environments.names.length > 0 && { environment: valueOf(call.form, 'environment') }),
        expiresAt: readExpiry(call.form, at) ?? null,
      }
      const options = { ...optionsOf(call), idempotencyKey, answersAgain: false }
      return revealOnce(call, 'created', () => createKey(parts, call, apiKey, options))
    },
  }

  const edit: Route = {
    async show(call, refused) {
      const { page, form } = call
      const apiKey = await lifecycle.get(call.keyId, optionsOf(call))
      const permissions = await permissionsFor(parts, call, apiKey.owner)
      const gone = goneOf(apiKey, permissions, settings.permissions.described)
      const content = (
        <KeyForm
          page={page}
          values={
            form.size > 0 ? valuesOf(form, resourceTypes) : valuesOfKey(apiKey, resourceTypes)
          }
          environments={environments.names}
          descriptions={descriptions}
          groups={groupsOf([...permissions, ...gone], page)}
          gone={gone}
          shown={form.size > 0 ? shownIn(form) : apiKey.permissions}
          problem={refused && problemOf(refused, page)}
          maxLifetimeSeconds={maxLifetimeSeconds}
          formAt={page.now.getTime()}
          edited={apiKey}
        />
      )
      return { title: page.texts.form.edit(apiKey.name), content }
    },

    async act(call) {
      const { form, page } = call
      const expiresAt = readExpiry(form, page.now.getTime())
      const changes = {
        ...inputOf(form, resourceTypes),
        ...(expiresAt !== undefined && { expiresAt }),
      }
      const shown = form.has(permissionsBefore) ? shownIn(form) : undefined
      const { id } = await routeCommands.edit(call.keyId, changes, optionsOf(call), shown)
      return { location: page.to(`${id}?notice=saved`) }
    },
  }

  return { create, edit }
}

/** Returns the permissions that a key had when its form was made. A name has no space. */
function shownIn(form: Form): string[] {
  return valueOf(form, permissionsBefore)
    .split(' ')
    .filter((name) => name !== '')
}

/** Returns the permissions of a key that its owner may no longer give. The form must not drop them unasked. */
function goneOf(
  apiKey: ApiKeyRecord,
  granted: readonly DescribedPermission[],
  described: readonly DescribedPermission[],
) {
  const names = new Set(granted.map(({ name }) => name))
  return described.filter(({ name }) => apiKey.permissions.includes(name) && !names.has(name))
}

function problemOf(refused: ApiKeysError, page: Page) {
  const { form, reveal } = page.texts
  const labels = {
    name: form.name,
    description: form.description,
    permissions: form.permissions,
    expiresAt: form.expiry,
    allowedIps: form.addresses,
    environment: form.environment,
    resources: form.resources,
    owner: page.texts.admin.fields.owner,
  }
  const problem = problemFrom(refused, page.texts, labels)
  return refused.code === 'idempotency_key_reused' ? { ...problem, general: reveal.again } : problem
}

/** Returns what a user typed, as the library takes it. */
function inputOf(form: Form, resourceTypes: readonly string[]) {
  const addresses = valueOf(form, 'addresses')
    .split(/[\s,]+/)
    .filter((address) => address !== '')
  const description = valueOf(form, 'description')
  const resources = readBindings(form, resourceTypes)
  return {
    name: valueOf(form, 'name'),
    description: description.trim() === '' ? null : description,
    permissions: form.get('permissions') ?? [],
    allowedIps: addresses.length > 0 ? addresses : null,
    ...(resources !== undefined && { resources }),
  }
}

/** Returns what a user typed, to be shown again. */
function valuesOf(form: Form, resourceTypes: readonly string[]): KeyValues {
  return {
    name: valueOf(form, 'name'),
    description: valueOf(form, 'description'),
    permissions: form.get('permissions') ?? [],
    environment: valueOf(form, 'environment'),
    expiry: valueOf(form, 'expiry'),
    expiresOn: valueOf(form, 'expiresOn'),
    addresses: valueOf(form, 'addresses'),
    bindings: bindingsIn(form, resourceTypes),
    bound: valueOf(form, boundBefore),
  }
}

function valuesOfKey(apiKey: ApiKeyRecord, resourceTypes: readonly string[]): KeyValues {
  const { name, description, permissions, allowedIps } = apiKey
  const { resources } = appFieldsOf(apiKey)
  return {
    name,
    description: description ?? '',
    permissions,
    environment: '',
    expiry: 'keep',
    expiresOn: '',
    addresses: allowedIps?.join('\n') ?? '',
    bindings: bindingsOf(resources, resourceTypes),
    bound: JSON.stringify(resources),
  }
}

/** Returns what an empty form has. If there is one permission only, a key needs it. */
function emptyValues(
  permissions: readonly DescribedPermission[],
  { environments, maxLifetimeSeconds, resources }: ConsoleParts['settings'],
): KeyValues {
  return {
    name: '',
    description: '',
    permissions: permissions.length === 1 ? permissions.map(({ name }) => name) : [],
    environment: environments.usual ?? environments.names[0] ?? '',
    expiry: firstPreset(maxLifetimeSeconds),
    expiresOn: '',
    addresses: '',
    bindings: bindingsOf(null, resources.keys()),
    bound: 'null',
  }
}

/** Returns permissions under the headings of the app. Those without a heading come last. */
function groupsOf(
  permissions: readonly DescribedPermission[],
  { look, texts }: Page,
): PermissionGroup[] {
  const groups = Object.entries(look.permissionGroups).map(([heading, names]) => ({
    heading,
    permissions: permissions.filter(({ name }) => names.includes(name)),
  }))
  const grouped = new Set(groups.flatMap((group) => group.permissions))
  const others = permissions.filter((permission) => !grouped.has(permission))
  const heading = groups.length > 0 ? texts.form.otherPermissions : ''
  return [...groups, { heading, permissions: others }].filter(
    (group) => group.permissions.length > 0,
  )
}
