import { notACursor } from '../../keys/cursor'

/** The sentences for faults whose messages are meant for programs. */
export const betterInEnglish: Readonly<Record<string, string>> = {
  'must name at least one permission': 'Choose at least one permission.',
  'must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z': 'Choose a day.',
  [notACursor]: 'This page of the list is not there any more. Start again with the first.',
  'may not be bound by this owner': 'One of these ids does not exist, or cannot be chosen here.',
  'may not be granted by you': 'You may not give a permission that you chose.',
  'may not be granted by this organization':
    'Your organization does not hold a permission that you chose.',
  'may not be granted by this user': 'You do not hold a permission that you chose.',
}
