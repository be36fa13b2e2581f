import { metrics } from '@opentelemetry/api'
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import type { RequestHandler } from 'express'

/**
 * Starts the metrics of the process, before the library is told to report its own. Returns the handler that answers Prometheus.
 */
export function startMetrics(): RequestHandler {
  const exporter = new PrometheusExporter({ preventServerStart: true })
  metrics.setGlobalMeterProvider(new MeterProvider({ readers: [exporter] }))

  return function showMetrics(req, res) {
    exporter.getMetricsRequestHandler(req, res)
  }
}
