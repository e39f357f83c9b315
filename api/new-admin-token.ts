import { ConfigError, type ServerConfig } from './config.ts'
import { withDatabase } from './open-registry.ts'
import { systemClock } from './ports/clock.ts'
import { replaceAdminToken } from './services/tokens/replace-admin.ts'

/** A new token for the administrator of a registry whose token is lost. Throws ConfigError. */
export function newAdminToken(config: ServerConfig): Promise<string> {
  return withDatabase(config, async ({ db }) => {
    const token = await replaceAdminToken({ ctx: { db, clock: systemClock } })
    if (token === null) throw new ConfigError('This registry has no administrator yet. Start the server: it shows the first token.')
    return token
  })
}
