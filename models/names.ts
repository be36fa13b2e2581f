/** Quotes the name of a table with its schema, for SQL. */
export function qualify(schema: string, name: string): string {
  return `${quote(schema)}.${quote(name)}`
}

/** Quotes a name, for SQL. */
export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`
}

/** True if a name stands in quotes. */
export function isQuoted(identifier: string): boolean {
  return /^".*"$/s.test(identifier)
}

/** Writes text as an SQL literal. Backslashes mean the same whatever `standard_conforming_strings` is. */
export function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`
  return text.includes('\\') ? `E${quoted.replaceAll('\\', '\\\\')}` : quoted
}
