const asyncHooks = require('node:async_hooks')
const { createRequire } = require('node:module')
const { compileFunction, constants } = require('node:vm')

const { default: Runtime } = require('jest-runtime')

/** The files that this worker has compiled. They do not change during a run. */
const compiled = new Map()

/** Keeps the strategies of an app in a module, so that each file of specs needs a copy. */
const hasState = /^passport$/

/**
 * Loads modules among the globals of Node (environment.js). Each file of specs runs the files of the project again, but
 * a worker compiles them once. Packages are loaded once in a worker, so a spec undoes its changes in them.
 */
module.exports = class NodeRealmRuntime extends Runtime {
  #isInNodeRealm
  #isIsolated = false
  #names
  #asyncHooks
  #storages = []

  constructor(config, environment, ...rest) {
    super(config, environment, ...rest)
    this.#isInNodeRealm = environment.getVmContext() === null
    this.#names = config.moduleNameMapper.map(([pattern, name]) => [new RegExp(pattern), name])
    this.#asyncHooks = { ...asyncHooks, AsyncLocalStorage: keptIn(this.#storages) }

    const { executor } = this
    if (this.#isInNodeRealm) {
      executor.compile = (source, file) => compile(source, file, executor.injectedModuleParameters)
    }
  }

  requireModule(from, name, options, isRequireActual) {
    if (this.#isInNodeRealm && !this.#isIsolated && name) {
      if (/^(node:)?async_hooks$/.test(name)) return this.#asyncHooks

      const isPackage = /^[@\w]/.test(name) && !options?.isInternalModule && !hasState.test(name)
      if (isPackage) return createRequire(from)(this.#realNameOf(name))
    }
    return super.requireModule(from, name, options, isRequireActual)
  }

  /** Loads second copies of packages. */
  async isolateModulesAsync(load) {
    this.#isIsolated = true
    await super.isolateModulesAsync(load).finally(() => {
      this.#isIsolated = false
    })
  }

  /**
   * Ends the storage that Jest makes for each file. Otherwise each promise would be handed to it for as long as the
   * worker lives.
   */
  teardown() {
    super.teardown()
    for (const storage of this.#storages) storage.disable()
  }

  #realNameOf(name) {
    const [, realName = name] = this.#names.find(([pattern]) => pattern.test(name)) ?? []
    return realName
  }
}

function compile(source, filename, parameters) {
  const known = compiled.get(filename)
  if (known) return known

  const importModuleDynamically = constants.USE_MAIN_CONTEXT_DEFAULT_LOADER
  const run = compileFunction(source, parameters, { filename, importModuleDynamically })
  compiled.set(filename, run)
  return run
}

function keptIn(storages) {
  return class AsyncLocalStorage extends asyncHooks.AsyncLocalStorage {
    constructor(...args) {
      super(...args)
      storages.push(this)
    }
  }
}
