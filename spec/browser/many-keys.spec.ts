import { describeInBrowser, useBrowser } from '../support/browser'
import { newKey, newUser } from '../support/keys'

const { apiKeys, openWindow } = useBrowser({ maxKeysPerOwner: 5_000 })

describeInBrowser('5,000 keys of one owner', () => {
  it('are found by pages, by words and in any order', async () => {
    const user = newUser()
    for (let batch = 0; batch < 10; batch++) {
      const keys = Array.from({ length: 500 }, (_, index) => {
        const number = String(batch * 500 + index).padStart(4, '0')
        return newKey({ userId: user, name: `Key ${number}` })
      })
      await apiKeys.createMany(keys)
    }
    const { page, errors } = await openWindow(user)
    const names = () => page.locator('.keys tbody th bdi').allTextContents()
    const first = await names()
    await page.getByRole('link', { name: 'Name', exact: true }).click()
    await page.getByRole('link', { name: 'Key 0000' }).waitFor()
    const byName = await names()
    await page.getByRole('link', { name: 'Next page' }).click()
    await page.getByRole('link', { name: 'Key 0020' }).waitFor()
    const second = await names()
    await page.getByRole('searchbox').fill('4321')
    await page.getByRole('button', { name: 'Search' }).click()
    await page.getByRole('link', { name: 'Key 4321' }).waitFor()

    expect(first).toHaveLength(20)
    expect([byName[0], byName[19]]).toEqual(['Key 0000', 'Key 0019'])
    expect([second[0], second[19]]).toEqual(['Key 0020', 'Key 0039'])
    expect(await names()).toEqual(['Key 4321'])
    expect(errors).toEqual([])
  })
})
