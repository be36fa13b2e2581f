import { notACursor } from '../../keys/cursor'
import { adminDe } from './admin-de'
import { faultInGerman, refusalsInGerman } from './faults-de'
import type { Texts } from './en'
import { exposureDe } from './exposure'
import { trailDe } from './trail-de'

/** The texts of the pages in German. */
export const de: Texts = {
  apiKeys: 'API-Schlüssel',
  apiKeysOf: (organization) => `API-Schlüssel von ${organization}`,
  crumbs: 'Wo du bist',
  backTo: (title) => `Zurück zu ${title}`,
  skip: 'Zum Inhalt springen',
  cancel: 'Abbrechen',
  more: (count) => `+${count} weitere`,

  list: {
    lead: 'Mit diesen Schlüsseln handeln Programme für dich. Halte sie geheim und widerrufe, was du nicht mehr brauchst.',
    leadOfOrganization:
      'Programme handeln mit diesen Schlüsseln für deine Organisation. Alle ihre Mitglieder hier teilen sie.',
    create: 'Schlüssel erstellen',
    search: 'Suchen',
    searchHint: 'Name, Beschreibung oder Anfang eines Schlüssels',
    filters: 'Nach Status filtern',
    allEnvironments: 'Alle Umgebungen',
    current: 'Aktuelle',
    clear: 'Alle aktuellen Schlüssel zeigen',
    columns: {
      name: 'Name',
      owner: 'Besitzer',
      permissions: 'Berechtigungen',
      status: 'Status',
      lastUsed: 'Zuletzt benutzt',
      usage: 'Letzte 30 Tage',
      created: 'Erstellt',
      expires: 'Läuft ab',
    },
    ascending: 'aufsteigend',
    descending: 'absteigend',
    sortBy: (column) => `Nach „${column}“ sortieren`,
    next: 'Nächste Seite',
    first: 'Erste Seite',
    pages: 'Seiten',
    empty: 'Noch keine API-Schlüssel',
    emptyLead:
      'Erstelle einen Schlüssel und gib ihn einem Programm. Es kann dann die API für dich aufrufen.',
    emptyLeadOfOrganization:
      'Erzeuge einen Schlüssel und gib ihn einem Programm. Dann kann es die API für deine Organisation aufrufen.',
    nothing: 'Kein Schlüssel passt',
    nothingLead: 'Versuche andere Wörter oder einen anderen Status.',
    uses: (count) => `${count} Anfragen in 30 Tagen`,
  },

  states: {
    active: 'Aktiv',
    suspended: 'Gesperrt',
    expired: 'Abgelaufen',
    revoked: 'Widerrufen',
  },

  times: { never: 'Nie', noExpiry: 'Nie', exactly: 'Genaue Zeiten' },

  form: {
    create: 'API-Schlüssel erstellen',
    createLead: 'Du siehst den Schlüssel einmal, gleich nachdem du ihn erstellt hast.',
    edit: (name) => `${name} bearbeiten`,
    name: 'Name',
    nameHint: 'Sag, was den Schlüssel benutzt, zum Beispiel „Nächtlicher Import“.',
    description: 'Beschreibung',
    optional: 'freiwillig',
    environment: 'Umgebung',
    environmentHint: 'Ein Schlüssel behält seine Umgebung für immer.',
    permissions: 'Berechtigungen',
    permissionsHint: 'Gib einem Schlüssel nur, was sein Programm braucht.',
    otherPermissions: 'Weitere',
    includes: (permissions) => `umfasst: ${permissions}`,
    permissionGone: 'hast du selbst nicht mehr',
    expiry: 'Ablauf',
    expiryHint: 'Ein Schlüssel, der abläuft, richtet weniger Schaden an, wenn er bekannt wird.',
    keepExpiry: (at) => `Behalten: ${at}`,
    keepNoExpiry: 'Behalten: läuft nicht ab',
    inDays: (days, at) => `${days}, bis ${at}`,
    onDate: 'An einem Tag',
    noExpiry: 'Läuft nicht ab',
    date: 'Letzter Tag (UTC)',
    addresses: 'Erlaubte Adressen',
    addressesHint:
      'IP-Adressen oder Bereiche wie 203.0.113.0/24, eine Angabe je Zeile. Ohne Angabe sind alle erlaubt.',
    restrictions: 'Adressen und Ressourcen einschränken',
    restrictAddresses: 'Adressen einschränken',
    resources: 'Nur für diese Ressourcen',
    resourcesHint: 'Ids, eine je Zeile. Eine Art ohne Angabe ist nicht eingeschränkt.',
    noResource: 'Gilt für keine davon',
    submit: 'Schlüssel erstellen',
    save: 'Änderungen speichern',
    problems: 'Der Schlüssel wurde nicht gespeichert. Bitte berichtige, was markiert ist.',
  },

  reveal: {
    created: (name) => `${name} ist erstellt`,
    rotated: (name) => `${name} hat ein neues Geheimnis`,
    once: 'Kopiere den Schlüssel jetzt. Er wird nur dieses eine Mal gezeigt.',
    key: 'Dein neuer Schlüssel',
    copy: 'Kopieren',
    copied: 'Kopiert',
    notCopied: 'Der Browser hat es nicht erlaubt. Der Text ist markiert: Drücke Strg+C oder ⌘C.',
    hidden: 'Dieser Schlüssel wird nicht mehr gezeigt.',
    tryIt: 'Ausprobieren',
    tryItLead: 'Führe diese Zeile in einem Terminal aus:',
    done: 'Ich habe den Schlüssel gesichert',
    graceUntil: 'Das alte Geheimnis gilt noch bis',
    already: 'Dieser Schlüssel ist schon erstellt',
    alreadyRotated: 'Dieses Geheimnis ist schon erstellt',
    alreadyLead:
      'Das Geheimnis stand in der Antwort auf die erste Anfrage und wird nicht noch einmal gezeigt. Wenn du es nicht hast, erstelle ein neues.',
    again:
      'Mit diesem Formular wurde schon ein Schlüssel erstellt. Drücke noch einmal „Schlüssel erstellen“, wenn du einen weiteren möchtest.',
  },

  key: {
    edit: 'Bearbeiten',
    rotate: 'Neues Geheimnis',
    suspend: 'Sperren',
    reactivate: 'Entsperren',
    revoke: 'Widerrufen',
    details: 'Einzelheiten',
    permissions: 'Berechtigungen',
    environment: 'Umgebung',
    resources: 'Nur für',
    addresses: 'Erlaubte Adressen',
    anyAddress: 'Jede Adresse',
    limits: 'Grenzen',
    noLimits: 'Keine Grenzen',
    limit: (count, duration) => `${count} Anfragen in ${duration}`,
    left: (count) => `${count} übrig`,
    fullAgain: 'wieder alle',
    limitsUnknown: 'Wie viel übrig ist, lässt sich gerade nicht lesen.',
    limitsOfProcess:
      'Jeder Server der App zählt für sich. Dies ist der Stand von einem dieser Server.',
    lastUsed: 'Zuletzt benutzt',
    from: (address) => `von ${address}`,
    notes: {
      suspended:
        'Dieser Schlüssel ist gesperrt. Anfragen mit ihm werden abgelehnt, bis du ihn entsperrst.',
      expired:
        'Dieser Schlüssel ist abgelaufen. Gib ihm einen späteren Ablauf, und er gilt wieder.',
      revoked: 'Dieser Schlüssel ist widerrufen. Er gilt nie wieder.',
    },
    idle: 'Dieser Schlüssel ist abgelaufen, weil er lange nicht benutzt wurde. Entsperre ihn, dann gilt er wieder.',
    idleExpiry: 'Läuft unbenutzt ab',
    ownerSuspended:
      'Der Besitzer dieses Schlüssels ist gesperrt. Anfragen mit ihm werden abgelehnt, bis die Verwaltung den Besitzer entsperrt.',
    revokedAt: 'Widerrufen',
    oldSecret: 'Das alte Geheimnis gilt noch',
    oldSecretUntil: (key) => `${key} gilt bis`,
    oldSecretUsed: 'Zuletzt benutzt:',
    oldSecretUnused: 'Es wurde nie benutzt.',
    endRotation: 'Altes Geheimnis jetzt beenden',
    pending: 'Ein neues Geheimnis wartet auf seine erste Benutzung',
    pendingUntil: (ends, grace) =>
      `${ends} löst das Geheimnis dieses Schlüssels ab, sobald es erstmals benutzt wird. Das heutige gilt danach noch ${grace}.`,
    endPending: 'Neues Geheimnis verwerfen',
  },

  usage: {
    title: 'Benutzung',
    hours: '24 Stunden',
    days: '30 Tage',
    period: 'Zeitraum',
    accepted: 'Angenommen',
    denied: 'Abgelehnt',
    rateLimited: 'Über der Grenze',
    hour: 'Zeit',
    day: 'Tag (UTC)',
    table: 'Als Tabelle zeigen',
    none: 'Keine Anfragen in dieser Zeit.',
    chart: (accepted, denied, limited) =>
      `Anfragen: ${accepted} angenommen, ${denied} abgelehnt, ${limited} über der Grenze`,
  },

  trail: trailDe,
  exposure: exposureDe,

  rotate: {
    title: (name) => `Neues Geheimnis für ${name}`,
    lead: 'Der Schlüssel behält Namen, Berechtigungen und Verlauf. Programme brauchen das neue Geheimnis.',
    grace: 'Das alte Geheimnis gilt noch',
    graceHint: 'Lange genug, um das neue Geheimnis in jedes Programm zu bringen.',
    now: 'gar nicht: Es endet sofort',
    activate: 'Das neue Geheimnis löst es ab',
    activations: { now: 'sofort', 'on-first-use': 'sobald es erstmals benutzt wird' },
    submit: 'Neues Geheimnis erstellen',
  },

  endRotation: {
    title: (name) => `Altes Geheimnis von ${name} beenden?`,
    lead: 'Programme, die es noch benutzen, werden dann abgelehnt.',
    submit: 'Altes Geheimnis beenden',
  },

  revoke: {
    title: (name) => `${name} widerrufen?`,
    lead: 'Der Schlüssel gilt sofort und für immer nicht mehr. Programme, die ihn benutzen, werden abgelehnt.',
    unused: 'Der Schlüssel wurde nie benutzt.',
    usedAt: 'Zuletzt benutzt:',
    reason: 'Grund',
    reasonHint: 'Für den Verlauf des Schlüssels.',
    submit: 'Schlüssel widerrufen',
    keep: 'Schlüssel behalten',
  },

  notices: {
    saved: 'Deine Änderungen sind gespeichert.',
    suspended: 'Der Schlüssel ist gesperrt.',
    reactivated: 'Der Schlüssel ist wieder aktiv.',
    revoked: 'Der Schlüssel ist widerrufen.',
    unrevoked: 'Der Widerruf ist zurückgenommen.',
    'rotation-ended': 'Das alte Geheimnis gilt nicht mehr.',
    transferred:
      'Der Schlüssel hat einen anderen Besitzer. Der vorige kennt das Geheimnis noch: Erstelle ein neues.',
  },

  refused: {
    title: 'Das ging nicht',
    retry: 'Noch einmal versuchen',
    toList: 'Zur Liste der Schlüssel',
    away: 'Der Server ist nicht erreichbar. Was du eingegeben hast, steht noch hier: Versuche es gleich noch einmal.',
    session: 'Du bist nicht angemeldet',
    sessionLead: 'Melde dich an, um deine Schlüssel zu sehen.',
    sessionKept:
      'Was du eingegeben hast, steht noch hier. Melde dich in einem anderen Tab wieder an, komm zurück und sende es noch einmal.',
    signIn: 'Anmelden',
    unavailable: 'Die Schlüssel sind gerade nicht erreichbar',
    unavailableKept: 'Was du eingegeben hast, steht noch hier. Sende es gleich noch einmal.',
    kept: 'Was du eingegeben hast',
    send: 'Noch einmal senden',
  },

  admin: adminDe,

  refusals: refusalsInGerman,

  line: (label, line) => `${label}, Zeile ${line}`,
  fault: (label, message) =>
    message === notACursor
      ? 'Diese Seite der Liste gibt es nicht mehr. Beginne wieder mit der ersten.'
      : `${label}: ${faultInGerman(message)}.`,
}
