import { readGranted } from '../keys/grantable'
import type { DescribedPermission } from '../options'
import type { Settings } from '../read-options'

interface PermissionListParts {
  /** Asks the app; `undefined` if every user may give all permissions. */
  askGrantable: ((userId: string | number) => Promise<readonly string[]>) | undefined
  settings: Pick<Settings, 'describedPermissions'>
}

export type ListPermissions = ReturnType<typeof createPermissionList>

/** Makes the function that lists the app's permissions, or those that a user may give to a key. */
export function createPermissionList({ askGrantable, settings }: PermissionListParts) {
  const { describedPermissions: all } = settings

  return async function listPermissions(
    userId?: string | number,
  ): Promise<{ permissions: readonly DescribedPermission[] }> {
    if (!askGrantable || userId === undefined) return { permissions: all }

    const granted = new Set(readGranted(await askGrantable(userId)))
    return { permissions: all.filter(({ name }) => granted.has(name)) }
  }
}
