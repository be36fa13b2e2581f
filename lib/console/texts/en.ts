import type { ErrorCode } from '../../errors'
import type { KeyState } from '../key-state'
import { adminEn } from './admin-en'
import { betterInEnglish } from './faults-en'
import { exposureEn } from './exposure'
import { trailEn } from './trail-en'

/** The texts of the pages in English. The other languages have the same. */
export const en = {
  apiKeys: 'API keys',
  apiKeysOf: (organization: string) => `API keys of ${organization}`,
  crumbs: 'Where you are',
  backTo: (title: string) => `Back to ${title}`,
  skip: 'Skip to the content',
  cancel: 'Cancel',
  more: (count: number) => `+${count} more`,

  list: {
    lead: 'Programs use these keys to act for you. Keep them secret, and revoke those that you no longer need.',
    leadOfOrganization:
      'Programs use these keys to act for your organization, and all of its members here share them.',
    create: 'Create key',
    search: 'Search',
    searchHint: 'Name, description, or start of a key',
    filters: 'Filter by status',
    current: 'Current',
    allEnvironments: 'All environments',
    clear: 'Show all current keys',
    columns: {
      name: 'Name',
      owner: 'Owner',
      permissions: 'Permissions',
      status: 'Status',
      lastUsed: 'Last used',
      usage: 'Last 30 days',
      created: 'Created',
      expires: 'Expires',
    },
    ascending: 'ascending',
    descending: 'descending',
    sortBy: (column: string) => `Sort by ${column}`,
    next: 'Next page',
    first: 'First page',
    pages: 'Pages',
    empty: 'No API keys yet',
    emptyLead: 'Create a key, give it to a program, and the program can call the API for you.',
    emptyLeadOfOrganization:
      'Create a key, give it to a program, and the program can call the API for your organization.',
    nothing: 'No key matches',
    nothingLead: 'Try other words, or another status.',
    uses: (count: string) => `${count} requests in 30 days`,
  },

  states: {
    active: 'Active',
    suspended: 'Suspended',
    expired: 'Expired',
    revoked: 'Revoked',
  } satisfies Record<KeyState, string>,

  times: { never: 'Never', noExpiry: 'Never', exactly: 'Exact times' },

  form: {
    create: 'Create an API key',
    createLead: 'You see the key once, right after you create it.',
    edit: (name: string) => `Edit ${name}`,
    name: 'Name',
    nameHint: 'Say what uses the key, for example “Nightly import”.',
    description: 'Description',
    optional: 'optional',
    environment: 'Environment',
    environmentHint: 'A key keeps its environment for ever.',
    permissions: 'Permissions',
    permissionsHint: 'Give a key only what its program needs.',
    otherPermissions: 'Other',
    includes: (permissions: string) => `includes: ${permissions}`,
    permissionGone: 'no longer available to you',
    expiry: 'Expiry',
    expiryHint: 'A key that expires does less harm if it leaks.',
    keepExpiry: (at: string) => `Keep: ${at}`,
    keepNoExpiry: 'Keep: does not expire',
    inDays: (days: string, at: string) => `${days}, until ${at}`,
    onDate: 'On a date',
    noExpiry: 'Does not expire',
    date: 'Last day (UTC)',
    addresses: 'Allowed addresses',
    addressesHint:
      'IP addresses or ranges such as 203.0.113.0/24, one in each line. Leave it empty to allow all.',
    restrictions: 'Restrict addresses and resources',
    restrictAddresses: 'Restrict addresses',
    resources: 'Only for these resources',
    resourcesHint: 'Ids, one in each line. A kind that is left empty is not restricted.',
    noResource: 'Bound to none of them',
    submit: 'Create key',
    save: 'Save changes',
    problems: 'The key was not saved. Please correct what is marked.',
  },

  reveal: {
    created: (name: string) => `${name} is created`,
    rotated: (name: string) => `${name} has a new secret`,
    once: 'Copy the key now. It is shown this once, and cannot be shown again.',
    key: 'Your new key',
    copy: 'Copy',
    copied: 'Copied',
    notCopied: 'The browser did not allow it. The text is selected: press Ctrl+C or ⌘C.',
    hidden: 'This key is no longer shown.',
    tryIt: 'Try it',
    tryItLead: 'Run this line in a terminal:',
    done: 'I have saved the key',
    graceUntil: 'The old secret works until',
    already: 'This key is created already',
    alreadyRotated: 'This secret is made already',
    alreadyLead:
      'Its secret was shown in the answer to the first request, and is not shown again. If you do not have it, make a new secret.',
    again:
      'A key was created with this form before. Press “Create key” again if you want one more.',
  },

  key: {
    edit: 'Edit',
    rotate: 'New secret',
    suspend: 'Suspend',
    reactivate: 'Reactivate',
    revoke: 'Revoke',
    details: 'Details',
    permissions: 'Permissions',
    environment: 'Environment',
    resources: 'Only for',
    addresses: 'Allowed addresses',
    anyAddress: 'Any address',
    limits: 'Limits',
    noLimits: 'No limits',
    limit: (count: string, duration: string) => `${count} requests in ${duration}`,
    left: (count: string) => `${count} left`,
    fullAgain: 'all of them again',
    limitsUnknown: 'How much is left cannot be read at the moment.',
    limitsOfProcess:
      'Each server of the app counts for itself. These are the counts of one of them.',
    lastUsed: 'Last used',
    from: (address: string) => `from ${address}`,
    notes: {
      suspended: 'This key is suspended. Requests with it are refused until you reactivate it.',
      expired: 'This key has expired. Give it a later expiry, and it works again.',
      revoked: 'This key is revoked. It never works again.',
    } satisfies Partial<Record<KeyState, string>>,
    idle: 'This key has expired because it was not used for long. Reactivate it, and it works again.',
    idleExpiry: 'Expires if unused',
    ownerSuspended:
      'The owner of this key is suspended. Requests with it are refused until an administrator reactivates the owner.',
    revokedAt: 'Revoked',
    oldSecret: 'The old secret still works',
    oldSecretUntil: (key: string) => `${key} works until`,
    oldSecretUsed: 'Its last use:',
    oldSecretUnused: 'It was never used.',
    endRotation: 'End the old secret now',
    pending: 'A new secret waits for its first use',
    pendingUntil: (ends: string, grace: string) =>
      `${ends} becomes the secret of this key when it is first used. The secret of today works for ${grace} after that.`,
    endPending: 'Cancel the new secret',
  },

  usage: {
    title: 'Usage',
    hours: '24 hours',
    days: '30 days',
    period: 'Period',
    accepted: 'Accepted',
    denied: 'Denied',
    rateLimited: 'Over the limit',
    hour: 'Time',
    day: 'Day (UTC)',
    table: 'Show as a table',
    none: 'No requests in this time.',
    chart: (accepted: string, denied: string, limited: string) =>
      `Requests: ${accepted} accepted, ${denied} denied, ${limited} over the limit`,
  },

  trail: trailEn,
  exposure: exposureEn,

  rotate: {
    title: (name: string) => `New secret for ${name}`,
    lead: 'The key keeps its name, its permissions and its history. Programs need the new secret.',
    grace: 'The old secret works on for',
    graceHint: 'Long enough to bring the new secret to every program.',
    now: 'no time: it ends at once',
    activate: 'The new secret takes its place',
    activations: { now: 'at once', 'on-first-use': 'when it is first used' },
    submit: 'Make new secret',
  },

  endRotation: {
    title: (name: string) => `End the old secret of ${name}?`,
    lead: 'Programs that still use it are refused from then on.',
    submit: 'End the old secret',
  },

  revoke: {
    title: (name: string) => `Revoke ${name}?`,
    lead: 'The key stops working at once, for ever. Programs that use it are refused.',
    unused: 'The key was never used.',
    usedAt: 'Its last use:',
    reason: 'Reason',
    reasonHint: 'For the history of the key.',
    submit: 'Revoke key',
    keep: 'Keep key',
  },

  notices: {
    saved: 'Your changes are saved.',
    suspended: 'The key is suspended.',
    reactivated: 'The key is active again.',
    revoked: 'The key is revoked.',
    unrevoked: 'The revocation is undone.',
    'rotation-ended': 'The old secret no longer works.',
    transferred:
      'The key has another owner. The owner before still knows its secret: make a new one.',
  },

  refused: {
    title: 'That did not work',
    retry: 'Try again',
    toList: 'To the list of keys',
    away: 'The server cannot be reached. What you typed is still here: try again in a moment.',
    session: 'You are not signed in',
    sessionLead: 'Sign in to see your keys.',
    sessionKept:
      'What you typed is kept here. Sign in again in another tab, then come back and send it.',
    signIn: 'Sign in',
    unavailable: 'The keys cannot be reached at the moment',
    unavailableKept: 'What you typed is kept here. Send it again in a moment.',
    kept: 'What you typed',
    send: 'Send again',
  },

  admin: adminEn,

  refusals: {} as Partial<Record<ErrorCode, string>>,

  /** Names a line of a field. */
  line: (label: string, line: number) => `${label}, line ${line},`,
  /** Writes the fault of a field, beside its label. */
  fault: (label: string, message: string) => betterInEnglish[message] ?? `${label} ${message}.`,
}

/** The texts of the pages. */
export type Texts = typeof en
