import type { App } from '../app.ts'
import { registerGetHealth } from './health/get.ts'
import { registerCreateOrganization } from './organizations/create.ts'
import { registerGetOrganization } from './organizations/get.ts'
import { registerListOrganizations } from './organizations/list.ts'
import { registerCreateToken } from './tokens/create.ts'
import { registerListTokens } from './tokens/list.ts'
import { registerRevokeToken } from './tokens/revoke.ts'
import { registerGetWhoami } from './whoami/get.ts'

const ROUTES: readonly ((app: App) => void)[] = [
  registerGetHealth,
  registerGetWhoami,
  registerListOrganizations,
  registerCreateOrganization,
  registerGetOrganization,
  registerListTokens,
  registerCreateToken,
  registerRevokeToken,
]

/** Every operation of the API, one line each, in the order in which openapi.yaml lists them. */
export function registerRoutes(app: App): void {
  for (const register of ROUTES) register(app)
}
