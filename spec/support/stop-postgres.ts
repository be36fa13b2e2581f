import { rm } from 'node:fs/promises'

export default async function stopPostgresForSpecs() {
  const { embeddedPostgres, specFolder } = globalThis
  await embeddedPostgres?.stop()
  // Programs that were killed may still write.
  if (specFolder !== undefined)
    await rm(specFolder, { recursive: true, force: true, maxRetries: 3 })
}
