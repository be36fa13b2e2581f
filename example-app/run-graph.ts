import { Problem } from './problems'

/** A step of a graph: a kind of work, and its settings. */
export interface Block {
  id: string
  kind: string
  settings: Record<string, string>
}

/** The values that a block reads by name. */
export type Inputs = Readonly<Record<string, unknown>>

const kinds: Readonly<Record<string, (inputs: Inputs, block: Block) => string>> = {
  'text.template': (inputs, { settings }) =>
    String(settings.template).replaceAll(/\{\{(\w+)\}\}/g, (_, name: string) => read(inputs, name)),
  'text.uppercase': (inputs) => read(inputs, 'text').toUpperCase(),
  'text.lowercase': (inputs) => read(inputs, 'text').toLowerCase(),
}

/** Returns the output of a block. Throws a Problem with status 422 if an input is missing. */
export function runBlock(block: Block, inputs: Inputs): string {
  const run = kinds[block.kind]
  if (!run) throw new Problem(422, `There is no kind of block called "${block.kind}"`)

  return run(inputs, block)
}

/**
 * Runs blocks in order, and returns the output of each. A block reads the inputs of the graph, and
 * the output of the block before it as `text`.
 */
export function runGraph(blocks: readonly Block[], inputs: Inputs) {
  let known = inputs
  return blocks.map((block) => {
    const output = runBlock(block, known)
    known = { ...known, text: output }
    return { block: block.id, output }
  })
}

/** Returns the inputs in a parsed body such as `{ "inputs": { "name": "Ada" } }`. No body means no inputs. */
export function readInputs(body: { inputs?: unknown } | undefined): Inputs {
  const inputs = body?.inputs ?? {}
  if (typeof inputs !== 'object') {
    throw new Problem(422, 'Send a JSON object such as { "inputs": { "name": "Ada" } }')
  }
  return { ...inputs }
}

function read(inputs: Inputs, name: string): string {
  const value = inputs[name]
  if (typeof value !== 'string' && typeof value !== 'number') {
    throw new Problem(422, `The input "${name}" must be a text or a number`)
  }
  return String(value)
}
