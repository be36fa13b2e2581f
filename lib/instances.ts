import type { OwnerNames } from './keys/owner-names'
import type { Settings } from './read-options'
import type { VerificationParts } from './verification/verification'

/** The parts of an instance that the command line uses beside its functions. */
export type InstanceParts = Settings &
  Pick<VerificationParts, 'appSequelize' | 'sequelize' | 'tables'> & {
    namesOfOwners: OwnerNames | undefined
  }

const instances = new WeakMap<object, InstanceParts>()

/** Notes the parts of an instance, so that the command line finds them. */
export function registerInstance(apiKeys: object, parts: InstanceParts) {
  instances.set(apiKeys, parts)
}

/** Returns the parts of an instance; `undefined` for any other value, and for an instance of another copy of the library. */
export function partsOfInstance(value: unknown): InstanceParts | undefined {
  return instances.get(Object(value))
}
