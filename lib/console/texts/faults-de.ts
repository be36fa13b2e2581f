import type { ErrorCode } from '../../errors'

/** The German sentences for refusals, by their codes. */
export const refusalsInGerman: Readonly<Partial<Record<ErrorCode, string>>> = {
  not_an_admin: 'Das darf nur die Verwaltung.',
  owner_suspended: 'Der Besitzer des Schlüssels ist gesperrt. Entsperre zuerst den Besitzer.',
  audit_trail_not_intact:
    'Das Ende des Protokolls ist verändert. Prüfe es, um die Fehler zu sehen.',
  api_key_not_allowed:
    'Schlüssel werden nicht mit einem Schlüssel verwaltet. Melde dich an und sende keinen Schlüssel mit.',
  cross_site_request: 'Eine Anfrage von einer anderen Website darf hier nichts ändern.',
  organization_not_found: 'Diese Organisation gibt es nicht.',
  read_only: 'Du darfst diese API-Schlüssel sehen, aber nicht ändern.',
  exceeds_access: 'Der API-Schlüssel darf mehr als du, darum darfst du sein Geheimnis nicht haben.',
  api_key_not_found: 'Diesen API-Schlüssel gibt es nicht.',
  api_key_suspended: 'Der Schlüssel ist gesperrt. Entsperre ihn zuerst.',
  api_key_expired:
    'Der Schlüssel ist abgelaufen. Gib ihm zuerst einen späteren Ablauf, oder entsperre ihn, wenn er unbenutzt war.',
  api_key_revoked: 'Der Schlüssel ist widerrufen und bleibt es. Erstelle einen neuen.',
  request_under_way: 'Diese Anfrage wird gerade ausgeführt. Versuche es gleich noch einmal.',
  too_many_api_keys: 'Es sind so viele Schlüssel, wie erlaubt sind. Widerrufe zuerst einen.',
  unsupported_media_type: 'Diese Seite nimmt nur ihre eigenen Formulare an.',
  body_too_large: 'Das Formular ist zu groß.',
  invalid_input: 'Die Eingabe ist nicht richtig.',
  grantable_unavailable:
    'Deine Berechtigungen können gerade nicht geprüft werden. Versuche es gleich noch einmal.',
  database_unavailable:
    'Schlüssel können gerade nicht gelesen oder geändert werden. Versuche es gleich noch einmal.',
}

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
  [/^must be the end of a trail as it was exported$/, 'ist kein gesichertes Ende eines Protokolls'],
  [/^was not exported here$/, 'stammt nicht von hier'],
  [/^is not an? (user|organization|service)$/, 'gibt es nicht'],
  [/^must be a UUID$/, 'ist keine UUID'],
  [/^must be a whole number$/, 'ist keine ganze Zahl'],
  [/^is out of range$/, 'ist zu groß oder zu klein'],
  [/^has an id of another type$/, 'hat eine Kennung anderer Art'],
  [/^must be a whole number of days .*$/, 'ist keine ganze Zahl von 1 bis 36500'],
  [/^must be an address or a range .*$/, 'enthält etwas, das keine Adresse und kein Bereich ist'],
  [
    /^must have no bits set behind its prefix$/,
    'enthält einen Bereich, der nicht an seiner Grenze beginnt',
  ],
  [/^must name at most (\d+) addresses$/, 'darf höchstens $1 Angaben haben'],
  [/^must be a whole number of seconds from 0 to \d+$/, 'ist keine gültige Dauer'],
  [/^must be text of 1 to 255 characters.*$/, 'muss 1 bis 255 Zeichen haben'],
  [/^must have at most (\d+) ids in all$/, 'darf zusammen höchstens $1 Ids haben'],
  [/^must have at most (\d+) bytes as JSON$/, 'ist zusammen zu lang'],
  [/^is not one of the types .*$/, 'gibt es nicht mehr'],
  [
    /^may not be bound by this owner$/,
    'enthält etwas, das es nicht gibt oder hier nicht wählbar ist',
  ],
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
