import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { createConsumer, pack, provide, root, unpack, type Consumer } from '../support/package'

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

describe('the types of the packed package', () => {
  it.each([
    ['Express 5', { express: 'express', core: 'express-serve-static-core' }],
    [
      'Express 4',
      { express: 'express4', core: 'express4/node_modules/@types/express-serve-static-core' },
    ],
  ])('keep their promises beside those of %s', async (_, types) => {
    consumer = await createConsumer({
      files: {
        'types.ts': await readFile(join(__dirname, 'consumers', 'types.ts'), 'utf8'),
        'tsconfig.json': JSON.stringify({ compilerOptions, include: ['types.ts'] }),
      },
    })
    await unpack(await pack(consumer.folder), consumer)
    for (const name of [
      'sequelize',
      'zod',
      '@types/node',
      '@types/validator',
      '@types/debug',
      'undici-types',
    ]) {
      await provide(consumer, name)
    }
    // Copies, so that all of them find the same types of Express.
    await provide(consumer, '@types/express', { from: `@types/${types.express}`, copy: true })
    await provide(consumer, '@types/express-serve-static-core', {
      from: `@types/${types.core}`,
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
      await provide(consumer, `@types/${name}`, { copy: true })
    }

    const printed = await consumer.run(join(root, 'node_modules', '.bin', 'tsc'))

    expect(printed).toBe('')
  })
})
