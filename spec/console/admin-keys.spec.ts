import { mount, useConsole } from '../support/console'
import { newUser } from '../support/keys'
import { factsOf, faultOf, fieldsOf, formWith, textOf } from '../support/visitor'

const { apiKeys, as, createKey, http, rows } = useConsole(
  { undoMinutes: 10, maxIdleDays: 30 },
  { admin: true },
)

const admin = as('admin-root')
const secret = /agpt_[0-9A-Za-z]{51}/

async function newestEntry(apiKeyId: string) {
  return (await apiKeys.events({ apiKeyId })).events[0]
}

describe('a new key on behalf of an owner', () => {
  it('is shown once, belongs to the owner, and names its maker', async () => {
    const owner = newUser()
    const form = await admin.open(`${mount}/new?ownerId=${owner}`)
    const fields = { name: 'On behalf', permissions: ['READ_GRAPH', 'READ_BLOCK'] }
    const shown = await admin.press(form, 'Create key', fields)
    const again = await admin.press(form, 'Create key', fields)
    const key = await admin.follow(shown, 'I have saved the key')
    const [record] = (await apiKeys.list({ userId: owner })).apiKeys

    expect(fieldsOf(formWith(form, 'Create key'))).toMatchObject({ ownerId: [owner] })
    expect(shown.status).toBe(201)
    expect(shown.html).toMatch(secret)
    expect([again.status, secret.test(again.html)]).toEqual([409, false])
    expect((await apiKeys.list({ userId: owner })).apiKeys).toHaveLength(1)
    expect(record).toMatchObject({ name: 'On behalf', createdBy: 'admin-root' })
    expect(factsOf(key)).toMatchObject({
      Owner: owner,
      'Made by': 'admin-root',
      Id: record?.id,
    })
    expect(await newestEntry(record?.id ?? '')).toMatchObject({
      actorType: 'admin',
      actorId: 'admin-root',
      address: expect.stringMatching(/127\.0\.0\.1|::1/),
    })
  })

  it('is refused beside the field that is wrong, and keeps what was typed', async () => {
    const form = await admin.open(`${mount}/new`)
    const without = await admin.press(form, 'Create key', { name: 'Kept' })
    const tooLong = await admin.press(form, 'Create key', { name: 'x', ownerId: 'y'.repeat(256) })

    expect(without.status).toBe(422)
    expect(faultOf(without, 'Owner')).toBe('Owner is required.')
    expect(faultOf(without, 'Permissions')).toBe('Choose at least one permission.')
    expect(fieldsOf(formWith(without, 'Create key'))).toMatchObject({ name: ['Kept'] })
    expect(faultOf(tooLong, 'Owner')).toBe('Owner must have 1 to 255 characters.')
  })

  it('is refused for an owner who is suspended', async () => {
    const owner = newUser()
    await apiKeys.suspendOwner({ type: 'user', id: owner })
    const form = await admin.open(`${mount}/new?ownerId=${owner}`)
    const refused = await admin.press(form, 'Create key', {
      name: 'None',
      permissions: ['READ_GRAPH'],
    })

    expect(refused.status).toBe(409)
    expect(refused.text).toContain('The owner of the API key is suspended.')
    expect((await apiKeys.list({ userId: owner })).apiKeys).toEqual([])
  })
})

describe('the page of a key of another user', () => {
  it('shows who did what, with ids and addresses', async () => {
    const owner = newUser()
    const { id } = await createKey({ userId: owner, name: 'Watched' })
    await apiKeys.suspend(id, { userId: owner, address: '203.0.113.7', reason: 'Lost' })
    await apiKeys.reactivate(id, {
      actor: { type: 'admin', id: 'admin-root' },
      address: '198.51.100.9',
    })
    const { root } = await admin.open(`${mount}/${id}`)
    const entries = root.querySelectorAll('.trail tbody tr')

    expect(entries.map((row) => textOf(row.querySelector('.who')))).toEqual([
      'You 198.51.100.9',
      `User ${owner} 203.0.113.7`,
      'The app',
    ])
  })

  it('suspends it for a reason, and reactivates it', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser(), name: 'CI <b>' })
    const question = await admin.follow(await admin.open(`${mount}/${id}`), 'Suspend')
    const suspended = await admin.press(question, 'Suspend key', { reason: 'Leaked' })
    const whileSuspended = await apiKeys.verify(plainTextKey)
    const entry = await newestEntry(id)
    const active = await admin.press(suspended, 'Reactivate')

    expect(textOf(question.root.querySelector('h1'))).toBe('Suspend CI <b>?')
    expect(suspended.text).toContain('The key is suspended.')
    expect(whileSuspended.valid).toBe(false)
    expect(entry).toMatchObject({ action: 'suspended', actorType: 'admin', reason: 'Leaked' })
    expect(active.text).toContain('The key is active again.')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(true)
  })

  it('changes it, gives it a new secret, and revokes it', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser(), name: 'Before' })
    const edit = await admin.follow(await admin.open(`${mount}/${id}`), 'Edit')
    const saved = await admin.press(edit, 'Save changes', {
      name: 'After',
      permissions: ['READ_BLOCK'],
    })
    const rotate = await admin.follow(saved, 'New secret')
    const shown = await admin.press(rotate, 'Make new secret', { grace: '0' })
    const key = await admin.follow(shown, 'I have saved the key')
    const question = await admin.follow(key, 'Revoke')
    const revoked = await admin.press(question, 'Revoke key', { reason: 'Over' })

    expect(shown.html).toMatch(secret)
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(false)
    expect(revoked.text).toContain('The key is revoked.')
    expect(await apiKeys.get(id)).toMatchObject({
      name: 'After',
      permissions: ['READ_BLOCK'],
      status: 'REVOKED',
    })
    expect(await newestEntry(id)).toMatchObject({ actorType: 'admin', reason: 'Over' })
  })

  it('says that the owner is suspended', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    await apiKeys.suspendOwner({ type: 'user', id: userId })

    expect((await admin.open(`${mount}/${id}`)).text).toContain(
      'The owner of this key is suspended.',
    )
    expect((await admin.open(`${mount}?ownerId=${userId}`)).text).toContain('Owner suspended')
  })
})

describe('a key', () => {
  it('is handed on to another owner, with a reason', async () => {
    const [from, to] = [newUser(), newUser()]
    const { id } = await createKey({ userId: from, name: 'Moving' })
    const form = await admin.follow(await admin.open(`${mount}/${id}`), 'Hand on')
    const moved = await admin.press(form, 'Hand on key', { ownerId: to, reason: 'Left' })

    expect(form.text).toContain(`Its owner is ${from}`)
    expect(moved.text).toContain('The key has another owner.')
    expect(factsOf(moved)).toMatchObject({ Owner: to })
    expect(await apiKeys.get(id)).toMatchObject({ userId: to })
    expect(await newestEntry(id)).toMatchObject({
      action: 'transferred',
      reason: 'Left',
      formerOwner: { type: 'user', id: from },
    })
  })

  it('is not handed on without an owner, nor to one who is suspended, nor once it is revoked', async () => {
    const [from, to] = [newUser(), newUser()]
    await apiKeys.suspendOwner({ type: 'user', id: to })
    const { id } = await createKey({ userId: from })
    const form = await admin.open(`${mount}/${id}/transfer`)
    const without = await admin.press(form, 'Hand on key', { reason: 'Kept' })
    const suspended = await admin.press(form, 'Hand on key', { ownerId: to })
    await apiKeys.revoke(id)
    const revoked = await admin.press(form, 'Hand on key', { ownerId: newUser() })

    expect([without.status, faultOf(without, 'New owner')]).toEqual([422, 'Owner is required.'])
    expect(fieldsOf(formWith(without, 'Hand on key'))).toMatchObject({ reason: ['Kept'] })
    expect([suspended.status, revoked.status]).toEqual([409, 409])
    expect(revoked.text).toContain('The API key is revoked, and stays so.')
    expect(await apiKeys.get(id)).toMatchObject({ userId: from })
  })

  it('does not claim a change that was not made', async () => {
    const { id } = await createKey({ userId: newUser() })
    const page = await admin.open(`${mount}/${id}?notice=transferred`)

    expect(page.text).not.toContain('The key has another owner.')
  })

  it('is revoked once, whatever two administrators press at once', async () => {
    const { id } = await createKey({ userId: newUser() })
    const question = await admin.open(`${mount}/${id}/revoke`)
    const other = as('admin-other')
    const answers = await Promise.all([
      admin.press(question, 'Revoke key'),
      other.press(question, 'Revoke key'),
    ])
    const { events } = await apiKeys.events({ apiKeyId: id, action: 'revoked' })

    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(events).toHaveLength(1)
  })

  it('is active again after its revocation was undone, and has that button only while it is possible', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    await apiKeys.revoke(id)
    const page = await admin.open(`${mount}/${id}`)
    const undone = await admin.press(page, 'Undo revocation')
    await apiKeys.revoke(id)
    await rows(`UPDATE api_keys SET revoked_at = revoked_at - interval '10 minutes'`)
    const late = await admin.press(page, 'Undo revocation')

    expect(page.text).not.toContain('It never works again.')
    expect(undone.text).toContain('The revocation is undone.')
    expect(undone.html).not.toContain('/unrevoke')
    expect(late.status).toBe(409)
    expect(late.text).toContain('The API key is revoked, and stays so.')
    expect(late.html).not.toContain('/unrevoke')
    expect(late.text).toContain('It never works again.')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(false)
    const { events } = await apiKeys.events({ apiKeyId: id, action: 'unrevoked' })
    expect(events).toMatchObject([{ actorType: 'admin', actorId: 'admin-root' }])
  })

  it('gets a new secret that waits for its first use, and loses it by a button', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    const form = await admin.open(`${mount}/${id}/rotate`)
    const fields = { grace: '3600', activate: 'on-first-use' }
    const shown = await admin.press(form, 'Make new secret', fields)
    const key = await admin.follow(shown, 'I have saved the key')
    const question = await admin.follow(key, 'Cancel the new secret')
    const cancelled = await admin.press(question, 'End the old secret')
    const [fresh = ''] = secret.exec(shown.html) ?? []
    const nonsense = await admin.press(form, 'Make new secret', { ...fields, activate: 'never' })

    expect(key.text).toContain('A new secret waits for its first use')
    expect(key.text).toContain('works for 1 hour after that')
    expect(question.text).toContain('A new secret waits for its first use')
    expect(cancelled.text).not.toContain('A new secret waits for its first use')
    expect((await apiKeys.verify(fresh)).valid).toBe(false)
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(true)
    expect(nonsense.status).toBe(422)
    expect(nonsense.html).not.toMatch(secret)
  })

  it('says that it was not used for long, and is reactivated by a button', async () => {
    const { id, plainTextKey } = await createKey({ userId: newUser() })
    const active = await admin.open(`${mount}/${id}`)
    await rows(`UPDATE api_keys SET created_at = created_at - interval '31 days' WHERE id = $1`, [
      id,
    ])
    const idle = await admin.open(`${mount}/${id}`)
    const again = await admin.press(idle, 'Reactivate')

    expect(factsOf(active)).toMatchObject({ 'Expires if unused': expect.stringMatching(/UTC$/) })
    expect(active.text).not.toContain('Reactivate')
    expect(idle.text).toContain('This key has expired because it was not used for long.')
    expect(idle.text).not.toContain('New secret')
    expect(again.text).toContain('The key is active again.')
    expect((await apiKeys.verify(plainTextKey)).valid).toBe(true)
  })

  it('keeps its state while the owner changes it', async () => {
    const { id, userId } = await createKey({ userId: newUser() })
    const form = await admin.open(`${mount}/${id}/edit`)
    await http.as(userId).delete(`/api-keys/${id}`)
    const refused = await admin.press(form, 'Save changes', { name: 'Too late' })

    expect(refused.status).toBe(409)
    expect(await apiKeys.get(id)).toMatchObject({ name: 'Deployment', status: 'REVOKED' })
  })
})
