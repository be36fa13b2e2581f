import { rm } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Removes what `packForAdopters` has packed. */
export default async function removePackage() {
  const { GROUND_PACKAGE: tarball } = process.env
  if (tarball) await rm(dirname(tarball), { recursive: true, force: true })
}
