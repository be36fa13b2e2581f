require('reflect-metadata')

const { Controller, Get, Module, Req, UseGuards } = require('@nestjs/common')
const { NestFactory } = require('@nestjs/core')
const { AuthGuard } = require('@nestjs/passport')
const passport = require('passport')

const { setUp } = require('./set-up.cjs')

/*
 * An app of Nest. Its decorators are applied by hand, in place of the TypeScript compiler. The Passport strategy guards
 * one route, and the guard of the library guards the routes below /guarded.
 */

const { apiKeys } = setUp({ limits: { burst: { limit: 1, windowSeconds: 3600 } } })
passport.use(apiKeys.strategy)

class Graphs {
  throughPassport(req) {
    return { ranFor: req.user.id }
  }

  guarded(req) {
    return { ranFor: apiKeys.getApiKey(req).userId }
  }

  show() {
    return apiKeys.get('00000000-0000-4000-8000-000000000000')
  }

  create() {
    return apiKeys.create({ userId: 'alice', name: '', permissions: [] })
  }
}
decorate('throughPassport', Get('passport'), UseGuards(AuthGuard('api-key')))
decorate('guarded', Get('guarded'))
decorate('show', Get('shown'))
decorate('create', Get('created'))
Controller()(Graphs)

class App {
  configure(consumer) {
    consumer.apply(apiKeys.requirePermission('READ_GRAPH')).forRoutes('guarded')
  }
}
Module({ controllers: [Graphs] })(App)

function decorate(method, ...decorators) {
  const descriptor = Object.getOwnPropertyDescriptor(Graphs.prototype, method)
  for (const decorator of decorators) decorator(Graphs.prototype, method, descriptor)
  Req()(Graphs.prototype, method, 0)
}

void NestFactory.create(App, { logger: false }).then(async (app) => {
  await app.listen(0, '127.0.0.1')
  console.log(`listening on ${app.getHttpServer().address().port}`)
})
