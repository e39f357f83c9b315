/**
 * Stands in the Worker for packages that its own import and it never uses (`alias` in infra/wrangler.jsonc): pg-boss's
 * schedules and its own connections, and the parser of styles, which READMEs may not have. Whoever calls them is told.
 */
function absent(): never {
  throw new Error('This package is not part of the Worker: see api/absent-package.ts.')
}

export const RRuleTemporal = absent
export const CronExpressionParser = { parse: absent }
/** Of postcss. */
export const parse = absent
/** Of pg. */
const pg = { Pool: absent, types: {} }
export default pg
