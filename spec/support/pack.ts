import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { pack } from './package'

/** Packs the built package, which all consumers then install. */
export default async function packForConsumers() {
  process.env.PACKED_PACKAGE = await pack(await mkdtemp(join(tmpdir(), 'express-api-keys-packed-')))
}
