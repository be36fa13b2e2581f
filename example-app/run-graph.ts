import type { Json, JsonObject } from './json'
import { type Block, ExecutionError, runBlock } from './run-block'

/** Blocks put to work together: each node runs one, on what others have made. */
export interface Graph {
  /** The names of what whoever executes the graph has to give. */
  inputs: string[]
  nodes: GraphNode[]
  /** For every name in the result, the node that makes it. */
  outputs: Record<string, string>
}

/** One use of a block. Several nodes may use the same. */
export interface GraphNode {
  id: string
  blockId: string
  inputs: Record<string, Source>
}

/** Where an input of a node comes from. */
export type Source = { literal: Json } | { input: string } | { node: string } | { list: Source[] }

/** What one node of a graph has made. */
export interface Step {
  node: string
  result: Json
}

/**
 * Executes a graph and answers its named outputs.
 *
 * @throws {ExecutionError} for cycles, unknown blocks and nodes, and inputs that are missing or of a
 * wrong type
 */
export function runGraph(
  graph: Graph,
  blocks: ReadonlyMap<string, Block>,
  inputs: JsonObject,
): JsonObject {
  const steps = stepThroughGraph(graph, blocks, inputs)
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
  }
}

/** Executes a graph node by node, every node after those that it needs. Throws as `runGraph` does. */
export function* stepThroughGraph(
  graph: Graph,
  blocks: ReadonlyMap<string, Block>,
  inputs: JsonObject,
): Generator<Step, JsonObject, void> {
  for (const name of graph.inputs) {
    if (!Object.hasOwn(inputs, name)) throw new ExecutionError(`The input "${name}" is missing`)
  }
  const nodes = sortNodes(graph.nodes).map((node) => ({ node, block: findBlock(node, blocks) }))

  const results = new Map<string, Json>()
  for (const { node, block } of nodes) {
    const result = atNode(node, () => {
      const values = Object.entries(node.inputs).map(([name, source]) => [
        name,
        resolveSource(source, inputs, results),
      ])
      return runBlock(block, Object.fromEntries(values))
    })
    results.set(node.id, result)
    yield { node: node.id, result }
  }

  return Object.fromEntries(
    Object.entries(graph.outputs).map(([name, nodeId]) => [name, resultOf(nodeId, results)]),
  )
}

/** Orders nodes so that each comes after those it needs (Kahn's algorithm). */
export function sortNodes(nodes: readonly GraphNode[]): GraphNode[] {
  const waitingFor = new Map<string, Set<string>>()
  for (const node of nodes) {
    if (waitingFor.has(node.id)) throw new ExecutionError(`Two nodes are called "${node.id}"`)
    waitingFor.set(node.id, new Set(Object.values(node.inputs).flatMap(neededNodes)))
  }

  const neededBy = new Map<string, GraphNode[]>(nodes.map(({ id }) => [id, []]))
  for (const node of nodes) {
    for (const id of waitingFor.get(node.id) ?? []) {
      const dependants = neededBy.get(id)
      if (!dependants) throw new ExecutionError(`Node "${node.id}" needs "${id}", which is no node`)
      dependants.push(node)
    }
  }

  const sorted = nodes.filter(({ id }) => waitingFor.get(id)?.size === 0)
  // The list grows while it is walked: a node joins it when the last one that it waits for is done.
  for (const { id } of sorted) {
    for (const dependant of neededBy.get(id) ?? []) {
      const missing = waitingFor.get(dependant.id)
      missing?.delete(id)
      if (missing?.size === 0) sorted.push(dependant)
    }
  }

  if (sorted.length < nodes.length) {
    const stuck = nodes.filter((node) => !sorted.includes(node)).map(({ id }) => `"${id}"`)
    throw new ExecutionError(`The graph has a cycle; these nodes wait for it: ${stuck.join(', ')}`)
  }
  return sorted
}

function neededNodes(source: Source): string[] {
  if ('list' in source) return source.list.flatMap(neededNodes)
  return 'node' in source ? [source.node] : []
}

function findBlock({ id, blockId }: GraphNode, blocks: ReadonlyMap<string, Block>): Block {
  const block = blocks.get(blockId)
  if (!block) throw new ExecutionError(`Node "${id}" uses the block "${blockId}", which is unknown`)
  return block
}

function resolveSource(
  source: Source,
  inputs: JsonObject,
  results: ReadonlyMap<string, Json>,
): Json {
  if ('literal' in source) return source.literal
  if ('list' in source) return source.list.map((item) => resolveSource(item, inputs, results))
  if ('node' in source) return resultOf(source.node, results)

  const value = Object.hasOwn(inputs, source.input) ? inputs[source.input] : undefined
  if (value === undefined) throw new ExecutionError(`The graph has no input "${source.input}"`)
  return value
}

function resultOf(nodeId: string, results: ReadonlyMap<string, Json>): Json {
  const result = results.get(nodeId)
  if (result === undefined) throw new ExecutionError(`There is no node "${nodeId}"`)
  return result
}

/** Says where in the graph an execution failed. */
function atNode<Result>({ id }: GraphNode, run: () => Result): Result {
  try {
    return run()
  } catch (error) {
    if (!(error instanceof ExecutionError)) throw error
    throw new ExecutionError(`Node "${id}": ${error.message}`, { cause: error })
  }
}
