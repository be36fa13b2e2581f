const {
  OpenAPIRegistry,
  OpenApiGeneratorV3,
  OpenApiGeneratorV31,
} = require('@asteasolutions/zod-to-openapi')
const swaggerJsdoc = require('swagger-jsdoc')
const { z } = require('zod')

const { setUp } = require('./set-up.cjs')

const { apiKeys } = setUp({ header: 'X-API-Key' })
const info = { title: 'Graphs', version: '1' }

/**
 * @openapi
 * /graphs:
 *   get:
 *     summary: Lists graphs
 *     security:
 *       - apiKey: [READ_GRAPH]
 *     responses:
 *       200:
 *         description: Your graphs
 * /status:
 *   get:
 *     summary: Says how the app is
 *     responses:
 *       200:
 *         description: Fine
 */

/** Makes the documents of an app with generators. */
const documents = {
  'swagger-jsdoc': swaggerJsdoc({
    definition: { openapi: '3.1.0', info },
    apis: ['./generate.cjs'],
  }),
  'zod-to-openapi, 3.1': new OpenApiGeneratorV31(registry().definitions).generateDocument({
    openapi: '3.1.0',
    info,
  }),
  'zod-to-openapi, 3.0': new OpenApiGeneratorV3(registry().definitions).generateDocument({
    openapi: '3.0.3',
    info,
  }),
}

function registry() {
  const registry = new OpenAPIRegistry()
  const schema = z.array(z.object({ id: z.string() }))
  registry.registerPath({
    method: 'get',
    path: '/graphs',
    security: [{ apiKey: ['READ_GRAPH'] }],
    responses: {
      200: { description: 'Your graphs', content: { 'application/json': { schema } } },
    },
  })
  registry.registerPath({
    method: 'get',
    path: '/status',
    responses: { 200: { description: 'Fine' } },
  })
  return registry
}

const documented = Object.entries(documents).map(([name, document]) => [
  name,
  apiKeys.documentGuards(document),
])
console.log(JSON.stringify(Object.fromEntries(documented)))
