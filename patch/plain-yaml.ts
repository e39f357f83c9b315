import { isAlias, isNode, parseDocument, visit } from 'yaml'

/** Longest text in characters. */
export const MAX_YAML_LENGTH = 64 * 1024

export class PlainYamlError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'PlainYamlError'
  }
}

/**
 * A YAML mapping that a stranger may send: plain values, without tags, which name code, and without aliases, which make
 * much of little. `what` begins the messages. Throws PlainYamlError.
 */
export function parsePlainYaml(text: string, what: string): Record<string, unknown> {
  if (text.length > MAX_YAML_LENGTH) throw new PlainYamlError(`${what} has ${text.length} characters; at most ${MAX_YAML_LENGTH} are read.`)
  const document = parseDocument(text, { uniqueKeys: true })
  const [error] = document.errors
  if (error !== undefined) throw new PlainYamlError(`${what} is not YAML: ${error.message}`)
  visit(document, (_, node) => {
    if (isAlias(node)) throw new PlainYamlError(`${what} holds an alias (*). Write the value again where it is meant.`)
    if (isNode(node) && node.tag !== undefined) throw new PlainYamlError(`${what} holds the tag ${node.tag}: what is sent to a registry may not name code.`)
  })
  const value: unknown = document.toJS()
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new PlainYamlError(`${what} is not a mapping of keys.`)
  return value as Record<string, unknown>
}
