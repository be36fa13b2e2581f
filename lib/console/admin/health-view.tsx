import { HealthPage } from '../pages/admin/health'
import type { ConsoleParts, Route } from '../router'

/** Creates the view of the state of verification. It counts keys on request only, because that reads all of them. */
export function createHealthView({ verification }: ConsoleParts): Route {
  return {
    async show({ page, query }) {
      const isCounted = query.get('count') === 'living'
      const report = await verification.health({ probe: true, livingKeys: isCounted })
      const { title } = page.texts.admin.health
      return {
        title,
        content: <HealthPage page={page} health={report} />,
        section: 'health',
        isWide: true,
      }
    },
  }
}
