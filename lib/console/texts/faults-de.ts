/** The German sentences for faults of input, by the pattern of the English message. */
const sentences: readonly [RegExp, string][] = [
  [/^is required( here)?$/, 'fehlt'],
  [/^must have (\d+) to (\d+) characters$/, 'muss $1 bis $2 Zeichen haben'],
  [/^must have at most (\d+) characters$/, 'darf höchstens $1 Zeichen haben'],
  [/^must have at most (\d+) words$/, 'darf höchstens $1 Wörter haben'],
  [/^must not contain control characters$/, 'darf keine Steuerzeichen enthalten'],
  [/^must be well-formed Unicode$/, 'enthält ungültige Zeichen'],
  [/^must name at least one permission$/, 'mindestens eine ist nötig'],
  [/^must be one of .*$/, 'enthält etwas, das es nicht gibt'],
  [/^must not be repeated$/, 'enthält etwas doppelt'],
  [/^must be in the future$/, 'muss in der Zukunft liegen'],
  [/^must be before the year 10000$/, 'muss vor dem Jahr 10000 liegen'],
  [/^must be a time .*$/, 'ist kein Datum'],
  [/^must not be later than (.*)$/, 'darf nicht nach $1 liegen'],
  [/^must be an address or a range .*$/, 'enthält etwas, das keine Adresse und kein Bereich ist'],
  [
    /^must have no bits set behind its prefix$/,
    'enthält einen Bereich, der nicht an seiner Grenze beginnt',
  ],
  [/^must name at most (\d+) addresses$/, 'darf höchstens $1 Angaben haben'],
  [/^must be a whole number of seconds from 0 to \d+$/, 'ist keine gültige Dauer'],
  [/^may not be granted by (this user|you)$/, 'enthält etwas, das du nicht vergeben darfst'],
  [
    /^may not be granted by this organization$/,
    'enthält etwas, das deine Organisation nicht vergeben darf',
  ],
]

/** Returns a fault of input in German; in English if the catalogue does not have it. */
export function faultInGerman(message: string): string {
  const [pattern, sentence] = sentences.find(([pattern]) => pattern.test(message)) ?? []
  return pattern && sentence !== undefined ? message.replace(pattern, sentence) : message
}
