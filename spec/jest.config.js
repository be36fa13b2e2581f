const { availableParallelism } = require('node:os')
const rootDir = require('node:path').dirname(__dirname)

const base = {
  rootDir,
  testEnvironment: '<rootDir>/spec/support/jest/environment.js',
  // Node's own streams wait for ticks.
  fakeTimers: { doNotFake: ['nextTick'] },
  runtime: '<rootDir>/spec/support/jest/runtime.js',
  transform: {
    '\\.ts$': ['@swc/jest', { jsc: { target: 'es2023', parser: { syntax: 'typescript' } } }],
    '\\.tsx$': [
      '@swc/jest',
      {
        jsc: {
          target: 'es2023',
          parser: { syntax: 'typescript', tsx: true },
          transform: { react: { runtime: 'automatic', importSource: 'preact' } },
        },
      },
    ],
  },
  modulePathIgnorePatterns: [
    '<rootDir>/dist',
    '<rootDir>/example-app/dist',
    '<rootDir>/example-app/.postgres',
    '<rootDir>/spec/ground/adopters',
  ],
}

/** Packs the package once for all specs that install it. */
const withPackage = {
  globalSetup: '<rootDir>/spec/support/pack.ts',
  globalTeardown: '<rootDir>/spec/support/remove-package.ts',
}

/** Specs of `http` whose claims rest on Express itself: on its requests, routers, errors and responses. */
const onExpress = [
  'api-key-property',
  'authenticate-request',
  'browser-session',
  'canary',
  'document-route',
  'errors',
  'everywhere',
  'guards',
  'is-admin',
  'json-body',
  'on-refusal',
  'or-signed-in',
  'owner-router',
  'page',
  'refusals',
  'request-memory',
  'request-user',
  'routes',
  'same-origin',
  'several-guards',
  'strategy',
]

/** Faults in whose specs no process measures how long it relies on what is over. They may run beside other specs. */
const unmeasured = [
  'doctor',
  'embedded-postgres',
  'erasing',
  'exit',
  'importing',
  'indexes',
  'killed',
  'long-lists',
  'long-trails',
  'memory',
  'migrating-again',
  'owner-of-many-keys',
  'plans-of-empty-tables',
  'pruning',
  'redis-away',
  'sealing',
  'shared-limits',
]

/**
 * All specs run on Express 5. Specs that touch Express also run on Express 4. Specs that need a package registry or
 * break servers run apart.
 */
module.exports = {
  rootDir,
  globalSetup: '<rootDir>/spec/support/start-postgres.ts',
  globalTeardown: '<rootDir>/spec/support/stop-postgres.ts',
  testSequencer: '<rootDir>/spec/support/jest/sequencer.js',
  // Specs wait half of the time: for timers, for Postgres, for processes that they start. Measured faults have a core each, because
  // processes would be late on a busy machine.
  maxWorkers: 2 * availableParallelism(),
  // No spec asserts a time. The limit only ends a spec that hangs, on a machine that does much besides.
  testTimeout: 180_000,
  projects: [
    {
      ...base,
      displayName: 'express-5',
      testMatch: ['<rootDir>/spec/**/*.spec.ts'],
      testPathIgnorePatterns: [
        '<rootDir>/spec/package/(install|types).spec.ts',
        '<rootDir>/spec/browser/',
        '<rootDir>/spec/faults/',
        '<rootDir>/spec/ground/',
      ],
    },
    {
      ...base,
      displayName: 'express-4',
      testMatch: [
        `<rootDir>/spec/http/{${onExpress.join(',')}}.spec.ts`,
        '<rootDir>/spec/console/*.spec.ts',
        '<rootDir>/spec/tokens/*.spec.ts',
      ],
      moduleNameMapper: { '^express$': 'express4' },
    },
    {
      ...base,
      displayName: 'browser',
      testMatch: ['<rootDir>/spec/browser/*.spec.ts'],
    },
    {
      ...base,
      displayName: 'screenshots',
      testMatch: ['<rootDir>/spec/browser/screenshots.ts'],
    },
    {
      ...base,
      displayName: 'install',
      ...withPackage,
      testMatch: ['<rootDir>/spec/package/{install,types}.spec.ts'],
    },
    {
      ...base,
      displayName: 'in-full',
      setupFiles: ['<rootDir>/spec/support/all-runs.js'],
      testMatch: [
        '<rootDir>/spec/freshness/{change-log,freshness}.spec.ts',
        '<rootDir>/spec/http/escalation.spec.ts',
        '<rootDir>/spec/keys/{addresses,secret}.spec.ts',
        '<rootDir>/spec/lifecycle/{environments,races,owner-races}.spec.ts',
        '<rootDir>/spec/limits/rate-limiter.spec.ts',
        '<rootDir>/spec/verification/{cache,owner-permissions}.spec.ts',
      ],
    },
    {
      ...base,
      displayName: 'faults',
      testMatch: ['<rootDir>/spec/faults/*.spec.ts'],
    },
    {
      ...base,
      displayName: 'unmeasured-faults',
      testMatch: [`<rootDir>/spec/faults/{${unmeasured.join(',')}}.spec.ts`],
    },
    {
      ...base,
      displayName: 'measured-faults',
      testMatch: ['<rootDir>/spec/faults/*.spec.ts'],
      testPathIgnorePatterns: [`<rootDir>/spec/faults/(${unmeasured.join('|')}).spec.ts`],
    },
    {
      ...base,
      displayName: 'ground',
      ...withPackage,
      testMatch: ['<rootDir>/spec/ground/*.spec.ts'],
      testPathIgnorePatterns: leftOutOfGround(),
    },
  ],
}

/** Specs that take too long for each change, and versions of Postgres that exist for one platform only. */
function leftOutOfGround() {
  const tooLong = process.env.GROUND === 'all' ? [] : ['runtimes.spec.ts']
  const isLinux = process.platform === 'linux' && process.arch === 'x64'
  return isLinux ? tooLong : [...tooLong, 'postgres.spec.ts']
}
