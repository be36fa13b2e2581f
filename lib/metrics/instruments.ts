import type * as OpenTelemetry from '@opentelemetry/api'

import { createOptionChecks, show } from '../../models/option-checks'
import { systemClock } from '../database/clock'
import type { Observe, Observed, Work } from '../database/observed'
import { ApiKeysError } from '../errors'
import type { Environments } from '../keys/environments'
import type { Health } from '../verification/health'
import type { Outcomes } from '../verification/outcomes'
import type { InstrumentOptions } from './options'

type Api = typeof OpenTelemetry

/** The parts of the library that are measured. */
interface MeasuredParts {
  health(): Promise<Health>
  outcomes: Outcomes
  observed: Observed
  environments: Pick<Environments, 'keyPrefixes'>
}

/** The name of the meter and of the tracer, and the namespace of what the library names itself. */
const scope = 'express-api-keys'
const namespace = 'express_api_keys'

/** Tells the instances of one process apart. */
const prefixName = `${namespace}.prefix`
const outcome = `${namespace}.outcome`
const reasonName = `${namespace}.reason`
const cacheResult = `${namespace}.cache.result`

/** In seconds. A look-up takes about a millisecond, and ends after some seconds at the latest. */
const boundaries = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/**
 * Reports the metrics of this process to the OpenTelemetry of the app, and spans if it is asked to. Returns a function that ends that.
 * Throws a `TypeError` if options break the rules, if it runs already, or if the package `@opentelemetry/api` is missing.
 */
export function startInstruments(parts: MeasuredParts, options: unknown): () => void {
  const { spans = false } = readOptions(options)
  if (parts.observed.hasObserver) {
    throw new TypeError(
      'instrument: it runs already. End it with the function that it has returned',
    )
  }

  const api = loadApi()
  const meter = api.metrics.getMeter(scope)
  const instance = { [prefixName]: parts.environments.keyPrefixes[0] }
  const stop = observeState(meter, instance, parts)
  parts.observed.letWatch(createObserver(api, meter, { instance, spans }))
  return function stopInstruments() {
    stop()
    parts.observed.letWatch(undefined)
  }
}

function readOptions(options: unknown): InstrumentOptions {
  if (options === undefined) return {}
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new TypeError(`instrument: the options must be an object, got ${show(options)}`)
  }
  createOptionChecks('instrument').refuseUnknownNames(options, ['spans'])
  const { spans } = options as InstrumentOptions
  if (spans !== undefined && typeof spans !== 'boolean') {
    throw new TypeError(`instrument: spans must be true or false, got ${show(spans)}`)
  }
  return { spans }
}

function loadApi(): Api {
  try {
    return require('@opentelemetry/api') as Api
  } catch (cause) {
    throw new TypeError('instrument: needs the package @opentelemetry/api', { cause })
  }
}

/** Lets the meter ask for counts and states whenever it collects. A request only adds to a number. */
function observeState(
  meter: OpenTelemetry.Meter,
  instance: OpenTelemetry.Attributes,
  { health, outcomes }: MeasuredParts,
) {
  const counter = (name: string, unit: string, description: string) =>
    meter.createObservableCounter(`${namespace}.${name}`, { unit, description })
  const sum = (name: string, unit: string, description: string) =>
    meter.createObservableUpDownCounter(`${namespace}.${name}`, { unit, description })
  const gauge = (name: string, unit: string, description: string) =>
    meter.createObservableGauge(`${namespace}.${name}`, { unit, description })

  const decisions = counter('decisions', '{decision}', 'Decisions of guards and of verify.')
  const verifications = counter(
    'cache.verifications',
    '{verification}',
    'Verifications, with the key in the cache (hit) or not (miss).',
  )
  const cachedKeys = sum('cache.keys', '{key}', 'Keys in the cache.')
  const cacheLimit = sum('cache.limit', '{key}', 'The most keys that the cache holds.')
  const up = gauge('up', '1', '1 if this process can verify keys, else 0.')
  const lease = gauge('lease.remaining', 's', 'How long cached keys may still be used.')
  const lag = gauge('lag', 's', 'The time since the database was last asked for changes.')
  const unsealed = sum('audit.unsealed', '{entry}', 'Entries of this process without a seal.')
  const lost = counter('audit.lost', '{entry}', 'Entries of this process that are gone or altered.')
  const pending = sum('usage.pending', '{count}', 'Counts of uses that are not written yet.')
  const dropped = counter('usage.dropped', '{use}', 'Uses that there was no room to count.')

  async function observe(result: OpenTelemetry.BatchObservableResult) {
    const { ok, cache, lease: leased, lagMs, audit, usage } = await health()
    result.observe(decisions, outcomes.accepted, { [outcome]: 'accepted', ...instance })
    for (const { code, reason, count } of outcomes.refused.values()) {
      const why = { 'error.type': code, ...(reason !== null && { [reasonName]: reason }) }
      result.observe(decisions, count, { [outcome]: 'refused', ...why, ...instance })
    }
    result.observe(verifications, cache.hits, { [cacheResult]: 'hit', ...instance })
    result.observe(verifications, cache.misses, { [cacheResult]: 'miss', ...instance })
    result.observe(cachedKeys, cache.keys, instance)
    result.observe(cacheLimit, cache.maxKeys, instance)
    result.observe(up, ok ? 1 : 0, instance)
    result.observe(lease, leased.remainingMs / 1_000, instance)
    // A process that has not asked yet has no lag.
    if (lagMs !== null) result.observe(lag, lagMs / 1_000, instance)
    result.observe(unsealed, audit.waiting, instance)
    result.observe(lost, audit.lost, instance)
    result.observe(pending, usage.pending, instance)
    result.observe(dropped, usage.dropped, instance)
  }

  const all = [decisions, verifications, cachedKeys, cacheLimit, up, lease, lag, unsealed, lost]
  const observed = [...all, pending, dropped]
  meter.addBatchObservableCallback(observe, observed)
  return () => meter.removeBatchObservableCallback(observe, observed)
}

/** Makes the observer of look-ups and polls. */
function createObserver(
  api: Api,
  meter: OpenTelemetry.Meter,
  { instance, spans }: { instance: OpenTelemetry.Attributes; spans: boolean },
): Observe {
  const startSpan = spans ? createSpans(api) : undefined
  const durationOf = (work: Work, description: string) =>
    meter.createHistogram(`${namespace}.${work}.duration`, {
      unit: 's',
      description,
      advice: { explicitBucketBoundaries: boundaries },
    })
  const durations = {
    lookup: durationOf('lookup', 'How long requests wait for keys that are not cached.'),
    poll: durationOf('poll', 'How long the database takes to say what has changed.'),
  }

  return async function observe(work, run) {
    const span = startSpan?.(work)
    const startedAt = systemClock.monotonic()
    let failure: OpenTelemetry.Attributes = {}
    try {
      return await run()
    } catch (error) {
      failure = { 'error.type': error instanceof ApiKeysError ? error.code : '_OTHER' }
      span?.setAttributes(failure).setStatus({ code: api.SpanStatusCode.ERROR })
      throw error
    } finally {
      durations[work].record((systemClock.monotonic() - startedAt) / 1_000, {
        ...failure,
        ...instance,
      })
      span?.end()
    }
  }
}

/**
 * Makes the function that starts a span. A look-up belongs to the request that waits for it. A poll is for all requests, and so
 * is a trace of its own.
 */
function createSpans({ context, trace }: Api) {
  const tracer = trace.getTracer(scope)

  return (work: Work): OpenTelemetry.Span =>
    tracer.startSpan(`${namespace}.${work}`, { root: work === 'poll' }, context.active())
}
