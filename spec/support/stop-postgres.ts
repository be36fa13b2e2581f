import { rm } from 'node:fs/promises'

export default async function stopPostgresForSpecs() {
  const { embeddedPostgres } = globalThis
  if (!embeddedPostgres) return

  await embeddedPostgres.stop()
  await rm(embeddedPostgres.folder, { recursive: true, force: true })
}
