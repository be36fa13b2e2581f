import v = require('valibot')

import { oneOf, text, userIds } from './fields'
import type { IdTypes, Owner } from './owner'
import { documentedAs, documentedLike, isObject, pathTo } from './parse-input'

const serviceName = text({ min: 1, max: 100 })

/** Makes the schemas of input that names an owner. `userId` is the short form for a user. */
export function createOwnerInput({ user, organization, service }: IdTypes) {
  const ids = {
    user: userIds[user],
    ...(organization && { organization: userIds[organization] }),
    ...(service && { service: serviceName }),
  }
  const kind = oneOf(Object.keys(ids) as Owner['type'][])
  const owner = v.pipe(
    v.custom<object>(isObject, 'must be an owner: { type, id }'),
    v.rawTransform<object, Owner>(({ dataset: { value }, addIssue, NEVER }) => {
      const { type, id, ...others } = value as Partial<Record<'type' | 'id', unknown>>
      const issues = Object.keys(others).map((name) => ({ name, message: 'is not known here' }))
      const kindOf = v.safeParse(kind, type)
      if (!kindOf.success) issues.push({ name: 'type', message: kindOf.issues[0].message })
      const idOf = kindOf.success ? v.safeParse(ids[kindOf.output] as typeof ids.user, id) : null
      if (idOf?.success === false) issues.push({ name: 'id', message: idOf.issues[0].message })
      for (const { name, message } of issues) addIssue({ message, path: pathTo(value, name) })
      if (issues.length > 0 || !kindOf.success || !idOf?.success) return NEVER
      // The id fits the type, which the compiler cannot see.
      return { type: kindOf.output, id: idOf.output } as Owner
    }),
    documentedLike(
      v.union(Object.entries(ids).map(([type, id]) => v.object({ type: v.literal(type), id }))),
    ),
  )
  const names = { owner: v.optional(owner), userId: v.optional(ids.user) }

  /** Makes the schema of an object that names an owner besides other fields; an owner that may be left out if `isOptional`. */
  function fieldsOf<const Fields extends v.ObjectEntries>(
    fields: Fields,
    { isOptional = false } = {},
  ) {
    return v.pipe(
      v.object({ ...fields, ...names }),
      v.rawCheck(({ dataset: { value }, addIssue }) => {
        const { userId, owner } = Object(value) as { userId?: unknown; owner?: unknown }
        const [isUser, isOwner] = [userId !== undefined, owner !== undefined]
        const path = pathTo(value, isUser ? 'userId' : 'owner')
        if (isUser && isOwner) addIssue({ message: 'must not be given beside owner', path })
        else if (!isUser && !isOwner && !isOptional) addIssue({ message: missing, path })
      }),
      v.transform(({ userId, owner, ...others }) => ({
        ...others,
        owner: owner ?? (userId === undefined ? undefined : { type: 'user', id: userId }),
      })),
      documentedAs(isOptional ? notBoth : either),
    )
  }

  return {
    /** Makes the schema of an object that names an owner besides other fields. */
    ofOwner<const Fields extends v.ObjectEntries>(fields: Fields) {
      return fieldsOf(fields) as unknown as Named<Fields, Owner>
    },
    /** Makes the schema of an object that may name an owner besides other fields. */
    ofAnyOwner<const Fields extends v.ObjectEntries>(fields: Fields) {
      return fieldsOf(fields, { isOptional: true }) as unknown as Named<Fields, Owner | undefined>
    },
    userId: ids.user,
    organizationId: organization && userIds[organization],
  }
}

const missing = 'is required'

const either = { oneOf: [{ required: ['owner'] }, { required: ['userId'] }] }
const notBoth = { not: { required: ['owner', 'userId'] } }

/** The schema of an object with these fields that names an owner. The compiler cannot follow the spread of the fields. */
type Named<Fields extends v.ObjectEntries, Named extends Owner | undefined> = v.GenericSchema<
  unknown,
  v.InferOutput<v.ObjectSchema<Fields, undefined>> & { owner: Named }
> & { entries: v.ObjectEntries }
