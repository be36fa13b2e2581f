import { rm } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Removes what `packForConsumers` has packed. */
export default async function removePackage() {
  const { PACKED_PACKAGE: tarball } = process.env
  if (tarball) await rm(dirname(tarball), { recursive: true, force: true })
}
