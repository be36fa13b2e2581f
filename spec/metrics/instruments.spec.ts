import { context, metrics, trace, type Span } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base'
import type { Express } from 'express'

import type { TestApiKeys } from '../support/app'
import { databaseAway } from '../support/database'
import { useWorld } from '../support/world'

const exporter = new PrometheusExporter({ preventServerStart: true })
const spans = new InMemorySpanExporter()
/** The spans of requests, in their order. */
const requests: Span[] = []

metrics.setGlobalMeterProvider(new MeterProvider({ readers: [exporter] }))
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
trace.setGlobalTracerProvider(
  new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }),
)

/** Routes of an app whose requests are traced. */
function addRoutes(app: Express, { requirePermission }: TestApiKeys) {
  app.get('/metrics', (req, res) => exporter.getMetricsRequestHandler(req, res))
  app.use('/graphs', (_req, _res, next) => {
    const request = trace.getTracer('app').startSpan('GET /graphs')
    requests.push(request)
    context.with(trace.setSpan(context.active(), request), next)
  })
  app.get('/graphs', requirePermission('READ_GRAPH'), (_req, res) => {
    res.json([])
  })
}

const { apiKeys, http, createKey, createProcess } = useWorld({ routes: addRoutes })

let stop: (() => void) | undefined

afterEach(() => {
  stop?.()
  stop = undefined
  spans.reset()
  requests.length = 0
})

/** Returns the metrics that Prometheus reads: each by its name and its labels. */
async function read(): Promise<Map<string, number>> {
  const { text } = await http.get('/metrics')
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const [, name = '', value] = /^(\S+?(?:\{.*\})?) (\S+)/.exec(line) ?? []
      return [
        name
          .replaceAll(/,?(?:otel_scope_name|express_api_keys_prefix)="[^"]*"/g, '')
          .replace('{,', '{')
          .replace('{}', ''),
        Number(value),
      ]
    }),
  )
}

const decisions = 'express_api_keys_decisions_total'
const accepted = `${decisions}{express_api_keys_outcome="accepted"}`
const refused = (code: string, reason?: string) =>
  `${decisions}{express_api_keys_outcome="refused",error_type="${code}"${
    reason === undefined ? '' : `,express_api_keys_reason="${reason}"`
  }}`

describe('instrument', () => {
  it('counts decisions by outcome, code and reason', async () => {
    stop = apiKeys.instrument()
    const before = await read()
    const good = await createKey()
    const revoked = await createKey({ status: 'REVOKED' })
    const { plainTextKey: weak } = await createKey({ permissions: ['READ_BLOCK'] })

    await http.with(good.plainTextKey).get('/graphs')
    await http.with(good.plainTextKey).get('/graphs')
    await http.with(revoked.plainTextKey).get('/graphs')
    await http.with(weak).get('/graphs')
    await http.get('/graphs')
    await apiKeys.verify(good.plainTextKey)
    await apiKeys.verify('agpt_x')

    const after = await read()
    const since = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0)
    expect(since(accepted)).toBe(3)
    expect(since(refused('invalid_api_key', 'revoked'))).toBe(1)
    expect(since(refused('invalid_api_key', 'malformed'))).toBe(1)
    expect(since(refused('missing_permission'))).toBe(1)
    expect(since(refused('missing_credential'))).toBe(1)
  })

  it('names no key and no owner', async () => {
    stop = apiKeys.instrument()
    const { apiKey, plainTextKey } = await createKey({ userId: 'nobody-else' })
    await http.with(plainTextKey).get('/graphs')

    const { text } = await http.get('/metrics')

    expect(text).toContain(decisions)
    for (const secret of [apiKey.id, apiKey.prefix, apiKey.postfix, apiKey.userId]) {
      expect(text).not.toContain(secret)
    }
  })

  it('measures look-ups and polls, and not requests with a cached key', async () => {
    stop = apiKeys.instrument()
    const { plainTextKey } = await createKey()
    const before = await read()

    for (let count = 0; count < 3; count++) await http.with(plainTextKey).get('/graphs')

    const after = await read()
    const lookUps = 'express_api_keys_lookup_duration_count'
    const since = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0)
    expect(since(lookUps)).toBe(1)
    expect(after.get('express_api_keys_poll_duration_count')).toBeGreaterThan(0)
    expect(
      since('express_api_keys_cache_verifications_total{express_api_keys_cache_result="miss"}'),
    ).toBe(1)
    expect(
      since('express_api_keys_cache_verifications_total{express_api_keys_cache_result="hit"}'),
    ).toBe(2)
  })

  it('reports the state of the cache, the lease, the audit trail and usage', async () => {
    stop = apiKeys.instrument()
    const { plainTextKey } = await createKey()
    await http.with(plainTextKey).get('/graphs')

    const found = await read()

    const { cache } = await apiKeys.health()
    expect(found.get('express_api_keys_cache_keys')).toBe(cache.keys)
    expect(found.get('express_api_keys_cache_limit')).toBe(100_000)
    expect(found.get('express_api_keys_up')).toBe(1)
    expect(found.get('express_api_keys_lease_remaining')).toBeGreaterThan(0)
    expect(found.get('express_api_keys_lag')).toBeLessThanOrEqual(1)
    expect([...found.keys()]).toEqual(
      expect.arrayContaining([
        'express_api_keys_audit_unsealed',
        'express_api_keys_audit_lost_total',
        'express_api_keys_usage_pending',
        'express_api_keys_usage_dropped_total',
      ]),
    )
  })

  it('says with what look-ups fail while the database is away', async () => {
    const away = createProcess({ sequelize: databaseAway.connect() }, addRoutes)
    stop = away.apiKeys.instrument({ spans: true })
    const { plainTextKey } = await createKey()

    const answer = await away.http.with(plainTextKey).get('/graphs')

    expect(answer.status).toBe(503)
    const found = await read()
    const lookUps = 'express_api_keys_lookup_duration_count{error_type="database_unavailable"}'
    expect(found.get(lookUps)).toBe(1)
    expect(found.get('express_api_keys_up')).toBe(0)
    const failed = spans.getFinishedSpans().filter(({ name }) => name === 'express_api_keys.lookup')
    expect(failed.map(({ attributes, status }) => [attributes['error.type'], status.code])).toEqual(
      [['database_unavailable', 2]],
    )
  })

  it('makes no spans unless it is asked to', async () => {
    stop = apiKeys.instrument()
    const { plainTextKey } = await createKey()

    await http.with(plainTextKey).get('/graphs')

    expect(spans.getFinishedSpans()).toEqual([])
  })

  it('puts the span of a look-up into the trace of its request, and polls into none', async () => {
    // The app may start within a trace, in which polls run.
    const start = trace.setSpan(context.active(), trace.getTracer('app').startSpan('start'))
    const own = context.with(start, () => createProcess({}, addRoutes))
    stop = own.apiKeys.instrument({ spans: true })
    const { plainTextKey } = await createKey()

    await own.http.with(plainTextKey).get('/graphs')
    await own.http.with(plainTextKey).get('/graphs')

    const made = spans.getFinishedSpans()
    const lookUps = made.filter(({ name }) => name === 'express_api_keys.lookup')
    const polls = made.filter(({ name }) => name === 'express_api_keys.poll')
    expect(lookUps).toHaveLength(1)
    expect(lookUps[0]?.parentSpanContext?.spanId).toBe(requests[0]?.spanContext().spanId)
    expect(polls.length).toBeGreaterThan(0)
    expect(polls.map(({ parentSpanContext }) => parentSpanContext)).toEqual(
      polls.map(() => undefined),
    )
    const traces = new Set(lookUps.map((span) => span.spanContext().traceId))
    expect(polls.filter((span) => traces.has(span.spanContext().traceId))).toEqual([])
  })

  it('ends with the function that it returns', async () => {
    const end = apiKeys.instrument({ spans: true })
    const { plainTextKey } = await createKey()
    const before = await read()
    end()

    await http.with(plainTextKey).get('/graphs')

    expect((await read()).get(accepted)).toBe(before.get(accepted))
    expect(
      spans.getFinishedSpans().filter(({ name }) => name === 'express_api_keys.lookup'),
    ).toEqual([])
    stop = apiKeys.instrument()
    expect((await read()).get(accepted)).toBe((before.get(accepted) ?? 0) + 1)
  })

  it('runs once at a time', () => {
    stop = apiKeys.instrument()

    expect(() => apiKeys.instrument()).toThrow(
      new TypeError('instrument: it runs already. End it with the function that it has returned'),
    )
  })

  it.each([
    [{ span: true }, 'instrument: there is no option span. Did you mean spans?'],
    [{ spans: 'all' }, 'instrument: spans must be true or false, got "all"'],
    [null, 'instrument: the options must be an object, got null'],
  ])('refuses %j', (options, message) => {
    expect(() => apiKeys.instrument(options as never)).toThrow(new TypeError(message))
  })
})
