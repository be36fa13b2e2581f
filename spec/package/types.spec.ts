import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import {
  createConsumer,
  packedPackage,
  provide,
  root,
  unpack,
  type Consumer,
} from '../support/package'

const compilerOptions = {
  target: 'es2022',
  module: 'nodenext',
  moduleResolution: 'nodenext',
  strict: true,
  exactOptionalPropertyTypes: true,
  esModuleInterop: true,
  skipLibCheck: true,
  noEmit: true,
  types: ['node'],
}

let consumer: Consumer

afterEach(() => consumer.remove())

/** The types of Express and their dependencies, by the places where they are installed here. */
const expressTypes = {
  5: { express: 'express', core: 'express-serve-static-core' },
  4: { express: 'express4', core: 'express4/node_modules/@types/express-serve-static-core' },
}

/** Makes a consumer of the packed package with the types of everything except Express. */
async function createTypedConsumer(file: string) {
  consumer = await createConsumer({
    files: {
      [file]: await readFile(join(__dirname, 'consumers', file), 'utf8'),
      'tsconfig.json': JSON.stringify({ compilerOptions, include: [file] }),
    },
  })
  await unpack(packedPackage(), consumer)
  for (const name of [
    'sequelize',
    '@types/node',
    '@types/validator',
    '@types/debug',
    'undici-types',
  ]) {
    await provide(consumer, name)
  }
}

/** The types are copied, so that all packages find the same types of Express. */
async function provideExpress(version: 4 | 5, folder = '') {
  const { express, core } = expressTypes[version]
  const types = `${folder}@types`
  await provide(consumer, `${types}/express`, { from: `@types/${express}`, copy: true })
  await provide(consumer, `${types}/express-serve-static-core`, {
    from: `@types/${core}`,
    copy: true,
  })
  for (const name of [
    'passport',
    'body-parser',
    'connect',
    'qs',
    'range-parser',
    'serve-static',
    'send',
    'http-errors',
    'mime',
  ]) {
    await provide(consumer, `${types}/${name}`, { from: `@types/${name}`, copy: true })
  }
}

const compile = () => consumer.run(join(root, 'node_modules', '.bin', 'tsc'))

describe('the types of the packed package', () => {
  it.each([4, 5] as const)(
    'keep their promises beside the types of Express %i',
    async (version) => {
      await createTypedConsumer('types.ts')
      await provideExpress(version)

      expect(await compile()).toBe('')
    },
  )

  it.each([
    [4, 5],
    [5, 4],
  ] as const)(
    'keep them in an app with Express %i if the package finds Express %i',
    async (app, other) => {
      await createTypedConsumer('types.ts')
      await provideExpress(app)
      await provideExpress(other, 'express-api-keys/node_modules/')

      expect(await compile()).toBe('')
    },
  )

  it('keep them without any types of Express, and ask for none', async () => {
    await createTypedConsumer('untyped.ts')

    expect(await compile()).toBe('')
    const files = await consumer.run(join(root, 'node_modules', '.bin', 'tsc'), '--listFilesOnly')
    expect(files).toContain('express-api-keys/dist/lib/index.d.ts')
    expect(files).not.toMatch(/types\/(express|passport)|valibot|lib\/http\/router/)
  })
})
