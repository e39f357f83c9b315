import { ConfigError, type ServerConfig } from './config.ts'
import { withDatabase } from './open-registry.ts'
import { systemClock } from './ports/clock.ts'
import { replaceAdminToken } from './services/tokens/replace-admin.ts'
import { bootstrap } from './services/users/bootstrap.ts'

/**
 * A new token for the administrator of a registry whose token is lost; on a PostgreSQL server that has none yet, the first
 * one, which a Worker never makes. Throws ConfigError.
 */
export function newAdminToken(config: ServerConfig): Promise<string> {
  return withDatabase(config, async ({ db }) => {
    const token = (await replaceAdminToken({ ctx: { db, clock: systemClock } })) ?? (config.databaseUrl === undefined ? null : await bootstrap({ ctx: { db } }))
    if (token === null) throw new ConfigError('This registry has no administrator yet. Start the server: it shows the first token.')
    return token
  })
}
