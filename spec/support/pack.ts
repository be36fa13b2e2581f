import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { pack } from './package'

/** Packs the built package, which all projects of adopters then install. */
export default async function packForAdopters() {
  process.env.GROUND_PACKAGE = await pack(await mkdtemp(join(tmpdir(), 'express-api-keys-ground-')))
}
