const { ModernFakeTimers } = require('@jest/fake-timers')
const { ModuleMocker } = require('jest-mock')

/**
 * Runs specs among the globals of Node. Jest's own environment makes a copy of them for each file of specs. The copies are slow
 * to make and to read, and an `Error` of a package that is loaded outside is no `Error` there. A file that begins with
 * `@jest-environment node` still gets that environment, because the tests of an app run in it.
 */
module.exports = class NodeRealm {
  global = globalThis
  moduleMocker = new ModuleMocker(globalThis)
  fakeTimers = null
  #keysBefore = new Set(Reflect.ownKeys(globalThis))

  constructor({ projectConfig }) {
    this.fakeTimersModern = new ModernFakeTimers({ config: projectConfig, global: globalThis })
    // Jest takes the time from here, which fake timers do not change.
    globalThis[Symbol.for('jest-native-now')] = Date.now.bind(Date)
    globalThis[Symbol.for('jest-native-promise')] = Promise
    // The ten calls that Node shows may all be of Jest and Express.
    Error.stackTraceLimit = 100
    // Node prints warnings. Many specs provoke them.
    process.removeAllListeners('warning')
  }

  async setup() {}

  /** Removes what Jest and the specs have added to the globals. */
  async teardown() {
    this.fakeTimersModern.dispose()
    for (const key of Reflect.ownKeys(globalThis)) {
      if (!this.#keysBefore.has(key)) Reflect.deleteProperty(globalThis, key)
    }
  }

  exportConditions() {
    return ['node', 'node-addons']
  }

  /** Returns nothing: there is no context beside that of Node. */
  getVmContext() {
    return null
  }
}
