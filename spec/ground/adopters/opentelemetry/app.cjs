const { registerInstrumentations } = require('@opentelemetry/instrumentation')
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http')
const { PgInstrumentation } = require('@opentelemetry/instrumentation-pg')
const { InMemorySpanExporter, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base')
const { NodeTracerProvider } = require('@opentelemetry/sdk-trace-node')

/* An app whose requests and statements are traced. It prints its spans at the end, one on a line. */

const exporter = new InMemorySpanExporter()
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
provider.register()
registerInstrumentations({
  instrumentations: [
    new HttpInstrumentation(),
    new PgInstrumentation({ enhancedDatabaseReporting: true }),
  ],
})

const express = require('express')

const { beforeEnd, listen, setUp } = require('./set-up.cjs')

const { apiKeys } = setUp({ header: 'X-API-Key', currentUser: () => ({ id: 'alice' }) })
const app = express()
app.use('/api-keys', apiKeys.router())
app.get('/open', (req, res) => res.json({}))
app.get('/guarded', apiKeys.authenticate(), (req, res) => res.json({}))
app.get('/failing', apiKeys.authenticate(), () => {
  throw new Error('The route has failed')
})
listen(app)

beforeEnd(async () => {
  await apiKeys.close()
  for (const span of exporter.getFinishedSpans()) {
    const { name, attributes, events, links, status, startTime, endTime } = span
    const { traceId } = span.spanContext()
    const isRequest = 'http.request.method' in attributes || 'http.method' in attributes
    const times = { startedAt: toMs(startTime), endedAt: toMs(endTime) }
    console.log(
      JSON.stringify({ traceId, isRequest, ...times, name, attributes, events, links, status }),
    )
  }
})

function toMs([seconds, nanoseconds]) {
  return seconds * 1000 + nanoseconds / 1e6
}
